#!/usr/bin/env python3
"""Writes data/overlap_cases.json: ROUGE-L F1, sentence BLEU, length ratio and 13a tokens of text pairs as
rouge-score 0.1.2 and sacrebleu 2.6.0 compute them (pip install rouge-score==0.1.2 sacrebleu==2.6.0)."""
import json
import pathlib
import random

import sacrebleu
from rouge_score import rouge_scorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

HAND = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("The cat sat on a mat.", "The cat sat on the mat."),
    ("Completely different words here", "nothing in common at all"),
    ("", "something"), ("something", ""), ("", ""), ("...", "..."), ("!", "?"),
    ("one", "one"), ("one two", "one two"), ("one two three", "one two four"), ("a b c d e", "e d c b a"),
    ("It costs 1,000.50 dollars, i.e. 3-4 times more.", "It costs 1,000.50 dollars; 3-4 times as much."),
    ("Don't panic -- it's only\nline-\nbroken text-\n", "Do not panic: it is only line-broken text"),
    ("&quot;Quoted&quot; &amp; &lt;tags&gt; &amp;lt; <skipped>", "\"Quoted\" & <tags> &lt;"),
    ("x = y[0] + {a: 'b'} / (c*d) @home #1 100% $5 ~ ^ ` | \\", "x = y[1] + {a: 'b'} / (c*d) @home #1 100% $6"),
    ("Ünïcödé wörds, café – déjà vu…", "Unicode words, café – déjà vu..."),
    ("temperature 300 \u212a and \u0130stanbul", "temperature 300 k and i stanbul"),
    ("non\u00a0breaking\u2003spaces\u3000here\u0085now\x1fend \u2028", "non breaking spaces here now end"),
    ("日本語のテキスト。これは試験です。", "日本語のテキスト。それは試験だ。"),
    ("the the the the the the the", "the cat is on the mat"),
    ("1. First item\n2. Second item\n\n* third", "1. First item\n2. Another item\n\n* third"),
    ("..,,.. 5.5.5 ,5, .5. 5-5 a-5 5-a -", "., 5.5.5 5- 5 a -5"),
    ("The quick brown fox", "The quick brown fox jumps over the lazy dog near the river bank"),
    ("The quick brown fox jumps over the lazy dog near the river bank", "The quick brown fox"),
]


def random_pairs(count):
    generator = random.Random(7)
    words = "the a cat dog sat ran on under mat. house, 3.14 2-3 it's \"so\" (maybe) naïve & é. .x x, ,\n Ok! K\u212a".split(" ")
    for _ in range(count):
        reference = [generator.choice(words) for _ in range(generator.randrange(1, 30))]
        candidate = [w if generator.random() < 0.7 else generator.choice(words) for w in reference]
        if generator.random() < 0.5:
            del candidate[generator.randrange(len(candidate)):]
        yield " ".join(candidate), " ".join(reference)


def case(candidate, reference):
    bleu = sacrebleu.sentence_bleu(candidate, [reference])
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False).score(reference, candidate)["rougeL"]
    return {
        "candidate": candidate, "reference": reference, "rouge_l_f1": rouge.fmeasure, "bleu": bleu.score,
        "length_ratio": bleu.sys_len / bleu.ref_len if bleu.ref_len else 0,
        "tokens_13a": Tokenizer13a()(candidate.rstrip()).split(),
    }


out = pathlib.Path(__file__).parent / "data" / "overlap_cases.json"
out.parent.mkdir(exist_ok=True)
cases = [case(*pair) for pair in [*HAND, *random_pairs(60)]]
out.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
