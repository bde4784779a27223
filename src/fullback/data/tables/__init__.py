"""CSV files and their relatives: of pixels, or of the names of image files.

Begin with delimited.py, which reads a text file into a Table; roles.py then finds which columns are
labels, names and pixels. pixel_table.py and image_list.py make data sets of that. Another usual
name of a column goes into column_names.py.
"""
