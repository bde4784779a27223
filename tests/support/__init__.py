"""What several test modules share.

``cases``     every layer with inputs, the list that all proofs of a layer run over
``byhand``    a backward pass in loops, with a switch for every mistake of the catalogue
``programs``  programs as people write them, from ``wrong_programs``
``networks``  networks and data that are trained, drawn or odd
``command``   runs of the command line
``files``     files of images, as bytes
``pages``     what tests do in a browser
"""
