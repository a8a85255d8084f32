"""Photographs as JPEG and lossy WebP, and the colours that PIL reads in them.

    python make_photos.py OUT   NAME.jpg or NAME.webp, and NAME.png with the colours

`cells` have colours that change at the borders of blocks alone, so that every inverse DCT gives the same; `waves` change everywhere;
`stripes` are so narrow that libjpeg has two columns of chroma, or three.
"""
import io, os, struct, sys
import numpy as np
import PIL
from PIL import Image, features

WRITTEN = {'444': 0, '422': 1, '420': 2}
QUALITY = 90


def cells(width, height, side=16):
    colours = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 0], [20, 30, 40], [255, 0, 255], [240, 250, 230]], np.uint8)
    y, x = np.mgrid[:height, :width] // side
    return colours[(3 * y + 2 * x) % len(colours)]


def waves(width, height):
    y, x = np.mgrid[:height, :width]
    return np.stack([127.5 + 127.5 * np.sin(x / a + y / b) for a, b in ((1.9, 5.0), (4.0, -2.3), (-3.1, 2.9))], -1).round().astype(np.uint8)


def stripes(width, height):
    y, x = np.mgrid[:height, :width]
    return np.where((x // 2 + y // 2)[..., None] % 2, np.uint8([250, 20, 60]), np.uint8([10, 80, 240]))


def jpeg(pixels, sampling, mode='RGB'):
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, 'JPEG', quality=QUALITY, subsampling=WRITTEN[sampling])
    return out.getvalue()


def scans(pixels, across, down, size=None):
    """A JPEG of a sampling that PIL does not write: each plane with the scan that it has as a grey JPEG. A size leaves of the last blocks what lies within it."""
    planes = [np.asarray(p) for p in Image.fromarray(pixels).convert('YCbCr').split()]
    planes[1:] = [p[::down, ::across] for p in planes[1:]]
    width, height = size or (pixels.shape[1], pixels.shape[0])
    heads, bodies = [], []
    for plane in planes:
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(out, 'JPEG', quality=QUALITY)
        segments, rest = {}, out.getvalue()[2:]
        while rest[1] != 0xda:
            n = 2 + struct.unpack('>H', rest[2:4])[0]
            segments[rest[1]] = segments.get(rest[1], b'') + rest[:n]
            rest = rest[n:]
        heads.append(segments)
        bodies.append(rest[2 + struct.unpack('>H', rest[2:4])[0]:-2])
    head = heads[0]
    assert all(h[k] == head[k] for h in heads for k in (0xdb, 0xc4))  # tables of quantization and of Huffman's codes
    frame = struct.pack('>BBHBHHB', 0xff, 0xc0, 8 + 9, 8, height, width, 3) + bytes([1, across << 4 | down, 0, 2, 0x11, 0, 3, 0x11, 0])
    start = [struct.pack('>BBHBBBBBB', 0xff, 0xda, 8, 1, i, 0, 0, 63, 0) for i in (1, 2, 3)]
    return b'\xff\xd8' + head[0xe0] + head[0xdb] + frame + head[0xc4] + b''.join(s + b for s, b in zip(start, bodies)) + b'\xff\xd9'


def webp(pixels, alpha=False):
    out = io.BytesIO()
    if alpha:
        y, x = np.mgrid[:pixels.shape[0], :pixels.shape[1]]
        pixels = np.concatenate([pixels, np.clip(255 - 8 * x, 0, 255)[..., None].astype(np.uint8)], -1)
    Image.fromarray(pixels).save(out, 'WEBP', quality=QUALITY, exact=True)
    return out.getvalue()


def main(out):
    files = {f'{kind.__name__}-{s}.jpg': jpeg(kind(37, 35), s) for kind in (cells, waves) for s in WRITTEN}
    files |= {f'stripes-{w}-{s}.jpg': jpeg(stripes(w, 9), s) for w in (4, 5) for s in ('422', '420')}
    files |= {'cells-440.jpg': scans(cells(37, 35), 1, 2), 'waves-440.jpg': scans(waves(37, 35), 1, 2), 'stripes-2-440.jpg': scans(stripes(2, 9), 1, 2),
              'cells-411.jpg': scans(cells(85, 35, 32), 4, 1), 'waves-cut-420.jpg': scans(waves(48, 32), 2, 2, (46, 30)),
              'cells-cmyk.jpg': jpeg(np.concatenate([cells(37, 35) // 2 + 41, cells(37, 35)[..., 2:] // 3 + 23], -1), '444', 'CMYK')}
    files |= {'waves.webp': webp(waves(37, 35)), 'waves-even.webp': webp(waves(36, 34)), 'waves-alpha.webp': webp(waves(37, 35), alpha=True), 'stripes.webp': webp(stripes(1, 9))}
    for name, data in files.items():
        with open(f'{out}/{name}', 'wb') as f: f.write(data)
        Image.open(io.BytesIO(data)).convert('RGB').save(f'{out}/{os.path.splitext(name)[0]}.png', optimize=True)
    print('PIL', PIL.__version__, 'libjpeg-turbo', features.version('libjpeg_turbo'), 'libwebp', features.version('webp'))


if __name__ == '__main__': main(*sys.argv[1:])
