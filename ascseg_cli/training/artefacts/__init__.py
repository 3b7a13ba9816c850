"""What cameras, scanners and bodies put between an object and its picture, drawn over batches of pictures.

Every change is a function of pictures (k, 3, h, w) float32 in 0..1, those that it befalls, and of its numbers; it
returns such pictures. No mask moves: what is drawn over an object doesn't end the object. Only a frame hides the
picture for good, so it takes the mask as a fourth channel.
"""
