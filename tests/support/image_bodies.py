"""What schemathesis sends as image files: real ones, which a description cannot tell apart."""

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image

FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "gif")


def image(kind, size):
    file = io.BytesIO()
    Image.new("L", size, 100).save(file, kind)
    return file.getvalue()


def files(kind):
    return st.sampled_from([image(kind, size) for size in ((1, 1), (3, 3), (40, 7))])


for kind in FORMATS:
    schemathesis.openapi.media_type(f"image/{kind}", files(kind))
schemathesis.openapi.media_type("application/octet-stream", files("png"))
