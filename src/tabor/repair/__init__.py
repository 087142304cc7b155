"""Taking a backdoor out of a model whose trigger a scan restored.  [§5.3.2]"""
