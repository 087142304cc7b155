"""Programs of `torch.export`, read from their archive and run by a list of operators; see `tabor.models.exported`."""
