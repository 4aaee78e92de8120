"""The tracker network as plain modules: values in, tensors out."""
