"""What a person reads of a scan: pictures, page, lines in a terminal; each a function of a `ScanResult`."""
