"""Bundles that must be refused, and unusual ones that must be taken; each has a builder of its own.

parts.py        a small good bundle, taken apart and put together again
files.py        the file and its zip directory
documents.py    JSON and the manifest
preprocess.py   what inputs are made of
weights.py      the safetensors entry
graphs.py       operators, references and arguments
sizes.py        graphs that would take memory or time without end
good.py         unusual, but sound
"""
