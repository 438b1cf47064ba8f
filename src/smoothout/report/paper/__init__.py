FORMATS = ("pdf", "png", "svg")
