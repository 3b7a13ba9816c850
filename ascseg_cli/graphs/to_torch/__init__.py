"""torch.export: the network in operators of torch alone, and the file"""
