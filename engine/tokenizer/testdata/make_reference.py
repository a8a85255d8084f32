"""What transformers' CLIPTokenizer does, beyond testdata/golden/tokens: reference.json and unicode.json.

    pip install transformers==5.23.0 tokenizers==0.23.3
    python make_reference.py REPOSITORY OUT

reference.json: how each way to write the settings of a tokenizer folder finds tokens in a text; every folder has the starter's
vocabulary. unicode.json: a sweep of every character.
"""
import json, os, random, sys, tempfile
import tokenizers, transformers
from transformers import CLIPTokenizer

REPO, OUT = sys.argv[1:]
STARTER = f'{REPO}/models/starter/tokenizer'
VOCAB = json.load(open(f'{STARTER}/vocab.json'))
MERGES = open(f'{STARTER}/merges.txt').read()
START, END = '<|startoftext|>', '<|endoftext|>'
VERSIONS = {'transformers': transformers.__version__, 'tokenizers': tokenizers.__version__}


def token(content, normalized, **more):
    return {'content': content, 'lstrip': False, 'normalized': normalized, 'rstrip': False, 'single_word': False, **more}


def typed(content, normalized):
    return token(content, normalized, __type='AddedToken')


def skeleton(**over):
    """A tokenizer.json without vocabulary and merges."""
    j = json.load(open(f'{REPO}/testdata/golden/tiny-v/tokenizer/tokenizer.json'))
    j['model'].update(vocab={}, merges=[])
    return {**j, **over}


CLASSIC = dict(bos_token=typed(START, True), eos_token=typed(END, True), unk_token=typed(END, True), pad_token=END)
MAP = dict(bos_token=token(START, True), eos_token=token(END, True), unk_token=token(END, True), pad_token=END)
FOLDERS = {  # file -> content
    'nothing': {},
    'stable-diffusion-1': {'tokenizer_config.json': CLASSIC, 'special_tokens_map.json': MAP},
    'stable-diffusion-2': {'tokenizer_config.json': CLASSIC, 'special_tokens_map.json': {**MAP, 'pad_token': '!'}},
    'sdxl tokenizer_2': {'tokenizer_config.json': dict(bos_token=START, eos_token=END, unk_token=END, pad_token='!', tokenizer_class='CLIPTokenizer', added_tokens_decoder={
        '0': token('!', False, special=True), '2265': token(START, True, special=True), '2266': token(END, True, special=True)}),
        'special_tokens_map.json': {'bos_token': token(START, False), 'pad_token': END}},
    'eos named last as normalized': {'tokenizer_config.json': dict(eos_token=END, unk_token=typed(END, True))},
    'eos named last as written': {'tokenizer_config.json': dict(eos_token=typed(END, True), unk_token=typed(END, False))},
    'eos in the map without flags': {'special_tokens_map.json': dict(eos_token=dict(content=END), unk_token=dict(content=END), pad_token=dict(content=END))},
    'textual inversion': {'tokenizer_config.json': dict(pad_token=END), 'added_tokens.json': {'<my Cat>': 2267, '<sks': 2268, '<sks>': 2269}},
    'extra special': {'tokenizer_config.json': dict(additional_special_tokens=['red</w>', 'ph'], mask_token='cat</w>', image_token='do', sep_token=None)},
    'tokenizer.json': {'tokenizer.json': skeleton()},
    'tokenizer.json of 2021': {'tokenizer.json': skeleton(post_processor=None, padding=None, added_tokens=[{'id': 2265, **token(START, True, special=True)}, {'id': 2266, **token(END, False, special=True)}])},
    'tokenizer.json with more tokens': {'tokenizer.json': skeleton(added_tokens=skeleton()['added_tokens'] + [{'id': 2267, **token('<sks>', False, special=False)}, {'id': 2268, **token('<My  Cat>', True, special=False)}]),
                                        'tokenizer_config.json': dict(pad_token='<sks>')},
}
TEXTS = ['hello! world', '<|STARTOFTEXT|>', '<|STARTOFTEXT|>!', 'a<|EndOfText|>b', '<|EndOfText|>!', 'x<|endoftext|>!', '!<|startoftext|>!', '!!', 'a <my Cat> <MY\tCAT> b<sks>c <SKS> <my cat>',
         'a red</w> of do cat</w> photo ph RED</w>']
HARD = ['a\u0305\u0301\u0316', 'a' + '\u0301' * 40 + '\u0323', '\u1100\u1161\u11a8 \uac00\u11a8', '\u0958\u0344\u212b', '\U00011935\U00011930 \U00011938', '\u0b47\u1ac2\u0b3c', 'x\U0001e01b\U00011d44', '\U00010d50\u1c89\ua7dc\ua7ce', '\u01c5 \u03a3\u0391\u03a3 \u017f \ufb01',
        'a\x85b\u180ec\x1cd\u200be', "it's I'M'LL ''s '", 'ab' * 200 + 'c', '\U0010ffff\ue000\u0378']


def load(files):
    with tempfile.TemporaryDirectory() as d:
        if 'tokenizer.json' not in files:
            json.dump(VOCAB, open(f'{d}/vocab.json', 'w')); open(f'{d}/merges.txt', 'w').write(MERGES)
        for name, content in files.items():
            if name == 'tokenizer.json':
                content = json.loads(json.dumps(content))
                content['model'].update(vocab=VOCAB, merges=[m.split(' ') for m in MERGES.split('\n')[1:] if m])
            json.dump(content, open(f'{d}/{name}', 'w'))
        return CLIPTokenizer.from_pretrained(d)


def drawn(n):
    r = random.Random(20)
    def char():
        while True:
            c = r.randrange(r.choice([0x80, 0x400, 0x3100, 0x10000, 0x110000]))
            if not 0xD800 <= c < 0xE000: return chr(c)
    return [''.join(char() for _ in range(r.randrange(1, 25))) for _ in range(n)]


def reference():
    out = []
    for name, files in FOLDERS.items():
        t = load(files)
        out.append(dict(name=name, files=files, start=t.bos_token_id, end=t.eos_token_id, pad=t.pad_token_id, size=max(t.get_vocab().values()) + 1,
                        cases=[dict(text=x, ids=t(x).input_ids) for x in TEXTS + (HARD + drawn(100) if name == 'nothing' else [])]))
    return dict(versions=VERSIONS, folders=out)


def ranges(chars):
    out = []
    for c in chars:
        if out and out[-1][1] == c - 1: out[-1][1] = c
        else: out.append([c, c])
    return out


def sweep():
    t = load({}).backend_tokenizer
    norm, words = t.normalizer.normalize_str, lambda s: len(t.pre_tokenizer.pre_tokenize_str(s))
    all = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    letters = [c for c in all if words(f'a{chr(c)}a') == 1]
    spaces = [c for c in all if words(f'a{chr(c)}a') == 2]
    numbers = [c for c in all if words(f'a{chr(c)}a') == 3 and words(chr(c) * 2) == 2]
    # A mark moves before one of a higher class, U+0358, or behind one of a lower class, U+0316.
    marks = [c for c in all if norm('x\u0358' + chr(c)) != 'x\u0358' + norm(chr(c)) or norm(f'x{chr(c)}\u0316') != 'x' + norm(chr(c)) + '\u0316' and norm('x' + chr(c)) == 'x' + norm(chr(c))]
    return dict(versions=VERSIONS, letters=ranges(letters), spaces=ranges(spaces), numbers=ranges(numbers), marks=ranges(marks),
                normal={f'{c:x}': norm(chr(c)) for c in all if norm(chr(c)) != chr(c)})


def write(name, value, **how):
    json.dump(value, open(f'{OUT}/{name}', 'w'), **how)


os.makedirs(OUT, exist_ok=True)
write('reference.json', reference())
write('unicode.json', sweep(), separators=(',', ':'))
