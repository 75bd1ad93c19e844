"""Images: files of strangers to the numbers that a network reads, with Pillow.

kind      rows of images to one array, on a few threads
bounds    how large they may be
decoding  one file to one image, within bounds
pixels    one image to its numbers
cells     what stands for an image in a row: bytes, base64, Pillow's own
files     bodies of images: one file, or an archive of them
archives  what is looked at before an archive is read, and its files
"""
