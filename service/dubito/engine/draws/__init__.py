"""The draws ω: from a counter-based generator, independent or stratified.

streams  raw words of a place
strata   numbers spread evenly over the samples
masks    ω of a site
"""
