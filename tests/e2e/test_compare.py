"""`tramontane compare` from the command line: table, JSON, page, and what it refuses."""
import html.parser
import json
import pathlib
import re

import pytest

from test_cli import MODEL, ROOT, assert_one_line_failure, run

DATA = ROOT / "tests/golden/data"
QUANTISED = str(DATA / "tiny-v0.3-mlx-q4")
OTHER_VOCABULARY = str(DATA / "tiny-nf4-dq")
ITEMS = [
    {"id": "sum", "question": "What is 2+2?", "options": ["2 + 2 = 4.", "Seven apples", "I do not know."],
     "gold": 0, "unknown": 2, "stereotyped": 1},
    {"question": "Who wrote this?", "options": ["A man", "A woman", "It cannot be known"], "unknown": 2, "stereotyped": 0},
    {"question": "Tell me about the licence.", "options": ["No", "Yes"]},
]  # fmt: skip


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# a comment\nWhat is 2+2?\n\nTell me about the licence.\n")
    return str(file)


def items_file(tmp_path, items):
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(file)


def compare(*arguments):
    return run("compare", "--reference", MODEL, *arguments)


def test_table_json_and_page_say_the_same(tmp_path, prompts):
    figures, page = tmp_path / "drift.json", tmp_path / "drift.html"
    result = compare(
        "--candidate", QUANTISED, "--candidate", MODEL, "--prompts", prompts, "--max-tokens", "12",
        "--json", str(figures), "--html", str(page),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr

    report = json.loads(figures.read_text())
    assert report["vocab_size"] == 32768 and report["max_tokens"] == 12
    assert [p["prompt"] for p in report["prompts"]] == ["What is 2+2?", "Tell me about the licence."]
    assert report["prompts"][0]["answer"] == "2 + 2 = 4."
    noise, quantised, itself = report["columns"]
    assert noise["noise_floor"] and not quantised["noise_floor"]
    assert itself["drift"]["kl_max"] == 0 and itself["drift"]["answers_changed"] == 0
    assert itself["drift"]["rouge_l_f1"] == 1 and itself["drift"]["top1_agreement"] == 1
    # Rounding moves a distribution by less than 4 bits for 16 do, and by more than nothing.
    assert 0 < noise["drift"]["kl_mean"] < quantised["drift"]["kl_mean"] / 10
    assert quantised["drift"]["positions"] == sum(p["tokens"] for p in report["prompts"])
    assert quantised["weight_bytes"] < itself["weight_bytes"] / 3
    ratio = quantised["drift"]["candidate_perplexity"] / quantised["drift"]["reference_perplexity"]
    assert abs(ratio - 1 - quantised["drift"]["perplexity_shift"]) < 1e-9

    rows = {line[:26].strip(): line[26:].split() for line in result.stdout.splitlines()}
    assert float(rows["top-1 agreement"][1].rstrip("%")) == pytest.approx(quantised["drift"]["top1_agreement"] * 100, abs=0.05)
    assert rows["answers changed"][-3:] == ["0", "of", "2"]
    assert float(rows["perplexity"][1]) == pytest.approx(quantised["drift"]["candidate_perplexity"], rel=1e-3)
    assert "wrote " + str(page) in result.stderr
    check_page(page.read_text(), ["tiny-v0.3-mlx-q4", "What is 2+2?", f"{quantised['drift']['top1_agreement'] * 100:.1f}%"])


class Page(html.parser.HTMLParser):
    """Counts charts, and checks that nothing is fetched and every element is closed."""

    VOID = {"meta", "br", "hr", "img", "link", "input", "col"}

    def __init__(self):
        super().__init__()
        self.open, self.charts, self.text = [], 0, ""

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe"), tag
        for name, value in attributes:
            assert name not in ("src", "href", "srcset") or value.startswith("#"), (tag, name, value)
        self.charts += tag == "svg"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open[-3:], tag)
        self.open.pop()

    def handle_data(self, data):
        self.text += data


def check_page(text, words):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and page.charts >= 2
    for word in words:
        assert word in page.text, word


def test_without_noise_floor_there_is_no_such_column(tmp_path, prompts):
    figures = tmp_path / "drift.json"
    result = compare("--candidate", MODEL, "--prompts", prompts, "--max-tokens", "4", "--no-noise-floor", "--json", str(figures))
    assert result.returncode == 0, result.stderr
    assert [column["noise_floor"] for column in json.loads(figures.read_text())["columns"]] == [False]
    assert "noise floor" not in result.stdout


def test_multiple_choice(tmp_path):
    figures, page = tmp_path / "flips.json", tmp_path / "flips.html"
    result = compare(
        "--candidate", QUANTISED, "--multiple-choice", items_file(tmp_path, ITEMS), "--json", str(figures), "--html", str(page)
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(figures.read_text())
    assert [item["id"] for item in report["items"]] == ["sum", "2", "3"], "items without an id are called by their line"
    for column in report["columns"]:
        choices = column["choices"]
        flips = sum(max(range(len(a)), key=a.__getitem__) != max(range(len(b)), key=b.__getitem__)
                    for a, b in zip(column["scores"], (item["scores"] for item in report["items"])))  # fmt: skip
        assert choices["items"] == 3 and len(choices["flips"]) == flips
        assert choices["flip_share"] == pytest.approx(flips / 3)
        assert choices["gold_items"] == 1 and choices["reference_right"] == 1
        assert choices["left_unknown"] <= choices["reference_unknown"] <= 2
        assert choices["unknown_to_stereotype"] <= choices["left_unknown"]
    assert 'left "unknown"' in result.stdout and "to the stereotype" in result.stdout
    check_page(page.read_text(), ["Who wrote this?"] if report["columns"][1]["choices"]["flips"] else ["tiny-v0.3-mlx-q4"])


@pytest.mark.parametrize(
    "item, words",
    [
        ({"question": "?", "options": ["a", "b"], "unknown": 2}, ["line 2", "unknown", "0..1", "2"]),
        ({"question": "?", "options": ["a", "b"], "stereotyped": -1}, ["line 2", "stereotyped"]),
        ({"question": "?", "options": ["a"]}, ["line 2", "options", "2 to 26"]),
        ({"question": "?", "options": ["a", "a"]}, ["line 2", "options"]),
        ({"options": ["a", "b"]}, ["line 2", "question is missing"]),
        ([1], ["line 2", "JSON object"]),
    ],
)
def test_bad_items_are_named_by_file_and_line(tmp_path, item, words):
    file = items_file(tmp_path, [ITEMS[0], item])
    assert_one_line_failure(compare("--candidate", MODEL, "--multiple-choice", file), file, *words)


def test_unequal_vocabularies_are_refused(prompts):
    result = compare("--candidate", OTHER_VOCABULARY, "--prompts", prompts)
    assert_one_line_failure(result, "tiny-nf4-dq", "2048", "tiny-v0.3-bf16", "32768", "equal vocabularies")


def variant(folder, tokenizer=None, **config):
    """The quantised model with another tokenizer or other settings."""
    folder.mkdir(parents=True)
    for file in pathlib.Path(QUANTISED).iterdir():
        (folder / file.name).symlink_to(file)
    if config:
        text = json.dumps(json.loads((folder / "config.json").read_text()) | config)
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(text)
    if tokenizer:
        (folder / "tokenizer.model").symlink_to(DATA / "tokenizers" / tokenizer)
    return str(folder)


def test_vocabularies_of_one_size_must_hold_the_same_tokens(tmp_path, prompts):
    arguments = ["--prompts", prompts, "--max-tokens", "2", "--no-noise-floor", "--candidate"]
    other = variant(tmp_path / "v1", "tokenizer.model.v1")
    assert_one_line_failure(compare(*arguments, other), other, "token 751 ", "equal vocabularies")
    # Releases 2 and 3 differ in the names of control tokens alone.
    release = variant(tmp_path / "v2", "mistral_instruct_tokenizer_240216.model.v2")
    assert compare(*arguments, release).returncode == 0


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(prompts):
    result = run("compare", "--reference", OTHER_VOCABULARY, "--candidate", OTHER_VOCABULARY, "--prompts", prompts, "--tokenizer", MODEL)
    assert_one_line_failure(result, "tiny-nf4-dq", "32768 pieces", "2048 embeddings")


def test_a_candidate_that_takes_fewer_tokens_is_refused_before_the_work(tmp_path, prompts):
    short = variant(tmp_path / "short", max_position_embeddings=40)
    result = compare("--candidate", MODEL, "--candidate", short, "--prompts", prompts)
    assert_one_line_failure(result, short, "takes 40 tokens")
    assert len(result.stderr.splitlines()) == 1, "no model was loaded"


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path, prompts):
    figures = tmp_path / "drift.json"
    old, new = (variant(tmp_path / name / "q4") for name in ("old", "new"))
    result = compare("--candidate", old, "--candidate", new, "--prompts", prompts, "--max-tokens", "2", "--no-noise-floor", "--json", str(figures))
    assert result.returncode == 0, result.stderr
    assert [column["name"] for column in json.loads(figures.read_text())["columns"]] == ["old/q4", "new/q4"]


def test_a_model_is_called_as_it_was_given(tmp_path, prompts):
    figures = tmp_path / "drift.json"
    (tmp_path / "mine").symlink_to(QUANTISED)
    result = compare("--candidate", f"{tmp_path}/mine/", "--prompts", prompts, "--max-tokens", "2", "--no-noise-floor", "--json", str(figures))
    assert result.returncode == 0, result.stderr
    assert json.loads(figures.read_text())["columns"][0]["name"] == "mine"


def test_a_run_that_fails_leaves_reports_as_they_were(tmp_path, prompts):
    kept, absent = tmp_path / "drift.json", tmp_path / "drift.html"
    kept.write_text("of yesterday")
    result = compare("--candidate", OTHER_VOCABULARY, "--prompts", prompts, "--json", str(kept), "--html", str(absent))
    assert_one_line_failure(result, "tiny-nf4-dq")
    assert kept.read_text() == "of yesterday" and not absent.exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--candidate", MODEL, "--prompts", "p", "--multiple-choice", "m"], ["--prompts", "--multiple-choice"]),
        (["--candidate", MODEL, "--prompts", "/nonexistent"], ["/nonexistent"]),
        (["--candidate", "/nonexistent"], ["/nonexistent"]),
        ([], ["--candidate"]),
        (["--candidate", MODEL, "--prefill-gemm", "cublas"], ["--prefill-gemm cublas", "compare needs"]),
        (["--candidate", MODEL, "--json", "/nonexistent/drift.json"], ["/nonexistent/drift.json", "cannot be written"]),
    ],
)
def test_failures_are_one_line(arguments, words):
    assert_one_line_failure(compare(*arguments), *words)


def test_the_readme_has_the_figures_of_the_report_that_it_shows():
    page = (ROOT / "docs/drift-smollm2.html").read_text()
    readme = (ROOT / "README.md").read_text()
    rows = {"mean KL": "KL mean", "same likeliest": "top-1 agreement", "perplexity of": "perplexity shift", "greedy answers": "answers changed"}
    for ours, theirs in rows.items():
        shown = [cell.strip() for cell in re.search(rf"^\| {ours}.*$", readme, re.M)[0].split("|")[2:-1]]
        row = re.search(rf"<td>{theirs}<span.*?</tr>", page)[0]
        measured = [re.match("[-+.\\d]+", cell)[0] for cell in re.findall("<td>([^<]*)</td>", row)]
        assert len(shown) == len(measured) == 7
        for text, value in zip(shown, measured):
            assert round(float(value), len(text.partition(".")[2])) == float(text), (theirs, text, value)
    positions = re.search(r"(\d+) positions of the reference", page)[1]
    assert f"{int(positions):,} positions" in readme


def test_computing_options_are_those_of_the_other_commands(tmp_path, prompts):
    figures = tmp_path / "drift.json"
    result = compare(
        "--candidate", MODEL, "--prompts", prompts, "--max-tokens", "2", "--no-noise-floor", "--json", str(figures),
        "--backend", "cpu", "--cpu-kernels", "scalar", "--threads", "1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(figures.read_text())["reference"]["backend"] == "cpu (scalar, 1 thread)"
    assert_one_line_failure(compare("--candidate", MODEL, "--cpu-kernels", "sse"), "--cpu-kernels", "sse")
    assert_one_line_failure(compare("--candidate", MODEL, "--backend", "tpu"), "--backend", "tpu")
