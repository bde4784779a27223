"""Image files and folders of them: which formats, their size and colours, classes by folder.

Begin with image_file.py, which reads one file to an array (C, H, W). A format is added in
image_formats.py, the one place where files are opened; a layout of folders in image_layout.py.
image_parts.py reads the images of all parts of a data set, whatever names them: folders, tables or
Parquet files; many_images.py decodes them on several threads.
"""
