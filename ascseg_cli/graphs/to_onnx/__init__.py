"""ONNX: the graph, its operators, and the file"""
