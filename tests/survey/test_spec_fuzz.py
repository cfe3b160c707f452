"""Specifications broken in every way: one line that names the key, and nothing on disk."""

import itertools
import tomllib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensitometer.configuration import ACTIVATIONS, AUGMENTATIONS, LABELS, LOSSES, OPTIMIZERS
from sensitometer.errors import InvalidInputError
from sensitometer.survey.spec import SECTIONS, load_spec, parse_spec

from .test_spec import SAMPLED, toml

NAME = "my.toml"
# Characters of an error line, its file's name apart, at most.
LONGEST = 300
# A sound specification with every key, each as (section, key): TOML.
SOUND = {(section, key): toml(value) for section, table in tomllib.loads(SAMPLED).items() for key, value in table.items()} | {
    ("survey", "keep_weights"): "true",
    ("data", "name"): '["digits", "mnist"]',
    ("data", "crop"): "8",
    ("data", "normalise"): '"none"',
    ("space", "init_scale"): "[0.5, 1]",
    ("space", "optimizer"): '["sgd", "lbfgs"]',
    ("space", "augmentation"): '["none", "shift-flip"]',
    ("space", "loss"): '["cross-entropy", "l2"]',
    ("space", "batch_size"): "[50, 60]",
    ("training", "checkpoint_steps"): "10",
    ("measure", "points"): "20",
    ("measure", "paths"): "21",
    ("measure", "slice"): "false",
}
# Keys of a file of data, which stands in place of known ones, are broken in test_own_data.py.
OF_A_FILE = {("data", key) for key in ("file", "sha256", "shape", "classes", "points")}
AXES = [place for place in SOUND if place[0] == "space"]
REQUIRED = [
    ("survey", "name"),
    ("data", "name"),
    ("space", "width"),
    ("space", "depth"),
    ("sample", "count"),
    ("training", "steps"),
]
OPTIONAL = ("sample", "measure")
STRINGS = [
    '""',
    '"x"',
    r'"a\nb\r\u2028c"',
    r'"\u0000\u001b[31m"',
    '"""\na\n\nb"""',
    '"a - at `$.space.width[0]`, got"',
    '"it must be so; got that"',
    '"a >= b, got c"',
    f'"a >= {"b" * 1000}"',
    f'"{"x" * 10_000}"',
]
INTEGERS = ["-1", "0", "7", "0o17", "1_000", "-9223372036854775808"]
HUGE = ["9223372036854775808", "-9223372036854775809", "1" + 400 * "0", "-" + 5000 * "9", 3000 * "1_2", "0x" + 5000 * "f"]
FLOATS = ["0.5", "-1.0", "-0.0", "1e300", "1e-400", "1e400", "inf", "-inf", "nan", f"0.{5000 * '1'}"]
BOOLEANS = ["true", "false"]
DATES = ["1979-05-27", "07:32:00.999999", "1979-05-27T07:32:00", "1979-05-27 00:32:00.5-07:00"]
TABLES = ["{}", "{a = 1}", r'{"a\nb" = {c.d = [1]}}', '{"- at `$.x`" = 1}', "{a = 0x" + 5000 * "f" + "}"]
# Arrays in which each value is one that no array of a specification has.
NESTED = [
    "[[]]",
    "[[1, 2], [[3]]]",
    "[{}, {a = 1}]",
    "[1979-05-27]",
    f"[{'[' * 50}{']' * 50}]",
    f"[[{'0,' * 2000}]]",
    "[[0x" + 5000 * "f" + "]]",
]
ARRAYS = ["[]", *NESTED]
# Values that may stand somewhere, by kind; an integer is a number, too.
KINDS = {
    "string": STRINGS,
    "integer": INTEGERS,
    "huge": HUGE,
    "float": FLOATS,
    "boolean": BOOLEANS,
    "date": DATES,
    "table": TABLES,
}
TAKEN = dict.fromkeys(SOUND, ("integer",)) | {
    ("survey", "name"): ("string",),
    ("survey", "keep_weights"): ("boolean",),
    ("measure", "slice"): ("boolean",),
    ("data", "name"): ("string", "array"),
    ("data", "normalise"): ("string",),
    ("sample", "weight"): ("string",),
    ("training", "stop_at_accuracy"): ("integer", "float"),
    ("measure", "jacobian"): ("string", "integer"),
    ("measure", "transitions"): ("string", "integer"),
} | dict.fromkeys(AXES, ("array",))  # fmt: skip
ELEMENTS = dict.fromkeys([("data", "name"), *AXES], ("string",))
ELEMENTS |= {("space", key): ("integer",) for key in ("width", "depth", "batch_size", "seed")}
ELEMENTS |= {("space", key): ("integer", "float") for key in ("init_scale", "learning_rate")}


def other_than(kinds):
    """Return values that are of none of these kinds."""
    everything = {**KINDS, "array": ARRAYS}
    return [value for kind, values in everything.items() if kind not in kinds for value in values]


def write(values):
    """Write a specification from {(section, key): TOML}."""
    lines = []
    for section, places in itertools.groupby(sorted(values), key=lambda place: place[0]):
        lines += [f"[{section}]", *(f"{key} = {values[section, key]}" for _, key in places)]
    return "\n".join(lines)


def error(text, name=NAME):
    """Return what is said of a specification that is wrong: one line, not too long, that begins with its name."""
    with pytest.raises(InvalidInputError) as caught:
        parse_spec(text, name)
    line = str(caught.value)
    assert line.isprintable(), line
    assert line.startswith(name)
    assert len(line) <= LONGEST
    return line


def refused(values, path, expected=""):
    """Require that a specification is refused for this key and no other."""
    line = error(write(values))
    assert line.startswith(f"{NAME}: {path}: {expected}"), line
    return line


def is_survey_or_one_line(text):
    """Require that a text is refused in one line, or stands for networks; return whether it does."""
    try:
        spec = parse_spec(text, NAME)
    except InvalidInputError:
        error(text)
        return False
    assert len(spec) >= 1
    assert len(list(itertools.islice(spec.configurations(), 3))) == min(3, len(spec))
    assert set(spec.sizes()) == set(spec.data.names)
    return True


def test_the_specification_that_is_broken_here_is_sound_and_has_every_key():
    assert is_survey_or_one_line(write(SOUND))
    assert set(SOUND) | OF_A_FILE == {
        (section, field.name) for section, kind in SECTIONS.items() for field in msgspec.structs.fields(kind)
    }


@pytest.mark.parametrize("place", SOUND, ids=".".join)
def test_a_value_of_another_type_is_refused_by_its_path(place):
    for value in other_than(TAKEN[place]):
        refused(SOUND | {place: value}, ".".join(place), "expected ")


@pytest.mark.parametrize("place", ELEMENTS, ids=".".join)
def test_an_element_of_another_type_is_refused_by_its_place_in_the_list(place):
    first, second = SOUND[place].strip("[]").split(", ")
    for value in other_than(ELEMENTS[place]):
        refused(SOUND | {place: f"[{first}, {value}, {second}]"}, f"{'.'.join(place)}[1]", "expected ")
        refused(SOUND | {place: f"[{value}]"}, f"{'.'.join(place)}[0]", "expected ")


WRONG = {
    ("survey", "name"): ['""', *STRINGS[2:5]],
    ("data", "name"): STRINGS,
    ("data", "crop"): ["0", "-1", "9", "9223372036854775807"],
    ("data", "normalise"): ['"half"', '"1/0"', '"1,2/1,1"', *STRINGS],
    ("data", "train_points"): ["0", "-1", "9", "1298", "9223372036854775807"],
    ("sample", "count"): ["0", "-1", "4097", "9223372036854775807"],
    ("sample", "seed"): ["-1", "-9223372036854775808"],
    ("sample", "weight"): STRINGS,
    ("training", "steps"): ["-1", "-9223372036854775808"],
    ("training", "decay_every_epochs"): ["0", "-1"],
    ("training", "stop_at_accuracy"): ["0", "-1", "2", *FLOATS[1:-1]],
    ("training", "checkpoint_steps"): ["0", "-1", "120", "9223372036854775807"],
    ("measure", "jacobian"): ["-1", "501", *STRINGS],
    ("measure", "transitions"): ["-1", "501", *STRINGS],
    ("measure", "transition_samples"): ["1", "0", "-1"],
}  # fmt: skip
WRONG_ELEMENTS = ELEMENTS.keys() - {("space", "seed"), ("space", "init_scale"), ("space", "learning_rate")}
WRONG_ELEMENTS = {place: STRINGS if ELEMENTS[place] == ("string",) else ["0", "-1"] for place in WRONG_ELEMENTS}
WRONG_ELEMENTS |= {("space", "seed"): ["-1"], ("space", "depth"): ["1", "0", "-1"]}
WRONG_ELEMENTS |= {("space", key): ["0", "-1", *FLOATS[1:3], *FLOATS[4:-1]] for key in ("init_scale", "learning_rate")}


@pytest.mark.parametrize("place", WRONG, ids=".".join)
def test_a_value_out_of_range_is_refused_by_its_path(place):
    for value in WRONG[place] + (HUGE if "integer" in TAKEN[place] else []):
        refused(SOUND | {place: value}, ".".join(place), "expected ")


@pytest.mark.parametrize("place", sorted(WRONG_ELEMENTS), ids=".".join)
def test_an_element_out_of_range_is_refused_by_its_place_in_the_list(place):
    first, second = SOUND[place].strip("[]").split(", ")
    for value in WRONG_ELEMENTS[place]:
        refused(SOUND | {place: f"[{first}, {second}, {value}]"}, f"{'.'.join(place)}[2]", "expected ")


@pytest.mark.parametrize("place", ELEMENTS, ids=".".join)
def test_an_empty_list_and_one_with_a_value_twice_are_refused(place):
    first, second = SOUND[place].strip("[]").split(", ")
    refused(SOUND | {place: "[]"}, ".".join(place), "expected at least one value")
    for values, index in (([first, first], 1), ([second, first, first], 2), ([first, second, first, second], 2)):
        line = refused(SOUND | {place: f"[{', '.join(values)}]"}, f"{'.'.join(place)}[{index}]")
        assert line.endswith(" is there twice")


@pytest.mark.parametrize("values", ["[1, 1.0]", "[0.1, 1e-1]", "[9007199254740992, 9007199254740993]"])
def test_numbers_that_are_one_learning_rate_are_there_twice(values):
    assert refused(SOUND | {("space", "learning_rate"): values}, "space.learning_rate[1]").endswith("is there twice")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_missing_or_no_table_is_refused(section):
    rest = write({place: value for place, value in SOUND.items() if place[0] != section})
    if section not in OPTIONAL:
        assert error(rest) == f"{NAME}: {section}: expected a value, got none"
    else:
        assert is_survey_or_one_line(rest)
    inside = "\n".join(f"{key} = {value}" for (of, key), value in SOUND.items() if of == section)
    for text in (
        *(f"{section} = {value}\n{rest}" for value in other_than(("table",))),
        f"{rest}\n[[{section}]]\n{inside}",
        f"{rest}\n[[{section}]]\n{inside}\n[[{section}]]\n{inside}",
    ):
        assert error(text).startswith(f"{NAME}: {section}: expected table; got "), error(text)


@pytest.mark.parametrize("place", SOUND, ids=".".join)
def test_a_key_that_is_missing_is_named_if_there_is_no_default(place):
    rest = {other: value for other, value in SOUND.items() if other != place}
    if place in REQUIRED:
        assert refused(rest, ".".join(place)) == f"{NAME}: {'.'.join(place)}: expected a value, got none"
    else:
        # A specification without a batch size has one of 256, which is more than these 200 points.
        expected = place != ("space", "batch_size")
        assert is_survey_or_one_line(write(rest)) == expected


@settings(max_examples=200)
@given(
    section=st.sampled_from(["", *SECTIONS]),
    key=st.text() | st.sampled_from(["Name", "widths", "width ", "- at `$.x`", "a.b", "$", "x" * 100, "\n", "[0]"]),
    value=st.sampled_from([value for values in (*KINDS.values(), ARRAYS) for value in values]),
)
def test_an_unknown_key_is_named_by_its_path(section, key, value):
    known = {field.name for field in msgspec.structs.fields(SECTIONS[section])} if section else set(SECTIONS)
    if key in known:
        return
    text = write(SOUND | {(section, toml(key)): value} if section else SOUND)
    line = error(text if section else f"{toml(key)} = {value}\n{text}")
    path = f"{NAME}: {section}." if section else f"{NAME}: "
    assert line.startswith(path)
    assert ": unknown key; expected one of " in line
    shown = line.removeprefix(path).partition(": unknown key")[0]
    assert shown in (key, repr(key)) or len(repr(key)) > 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (write(SOUND) + "\n[measure.jacobian]\nx = 1", " is not TOML: "),
        (write(SOUND) + "\n[space.widths]\nx = 1", ": space.widths: unknown key"),
        (write(SOUND) + "\n[spaces.width]\nx = 1", ": spaces: unknown key"),
        (write(SOUND) + "\n[[spaces]]\nx = 1", ": spaces: unknown key"),
        (write(SOUND) + "\n[space]\nx = 1", " is not TOML: "),
        (write(SOUND) + "\nx = 1\nx = 2", " is not TOML: "),
        (write(SOUND | {("survey", "name.first"): '"a"'}), " is not TOML: "),
        (SAMPLED.replace("width = ", "width.a = "), ": space.width: expected array; got {'a': [4, 12]}"),
        (SAMPLED.replace("width = ", f"width{'.a' * 2000} = "), ": space.width: expected array; got {'a': {'a': {...}}}"),
        (SAMPLED.replace("width = ", '"width " = '), ": space.'width ': unknown key"),
        (SAMPLED.replace("width = [4, 12]", f"width = {'[' * 5000}{']' * 5000}"), " cannot be read: its arrays or "),
        (SAMPLED.replace("width = [4, 12]", f"width = {'{a = ' * 5000}1{'}' * 5000}"), " cannot be read: its arrays or "),
        (f"[{'x' * 100_000}]\n" * 2, " is not TOML: "),
        ("x" * 100_000, " is not TOML: "),
        ("\ufeff" + SAMPLED, " is not TOML: "),
        (SAMPLED + "\0", " is not TOML: "),
        (SAMPLED + "\ud800", " is not TOML: "),
        ("", ": survey: expected a value, got none"),
        ("\n\n# nothing\n", ": survey: expected a value, got none"),
    ],
    ids=range(19),
)  # fmt: skip
def test_what_is_odd_in_the_text_is_named(text, message):
    assert error(text).startswith(NAME + message), error(text)


def test_a_list_of_twenty_thousand_values_is_looked_at_once():
    many = ", ".join(map(str, range(1, 20_001)))
    refused(SOUND | {("space", "seed"): f"[{many}, 50]"}, "space.seed[20000]", "50 is there twice")
    refused(SOUND | {("space", "seed"): f"[{many}, 1.5]"}, "space.seed[20000]", "expected int; got 1.5")


def test_a_space_that_is_too_large_to_be_counted_is_refused():
    many = f"[{', '.join(map(str, range(2, 5002)))}]"
    axes = {("space", key): many for key in ("width", "depth", "init_scale", "learning_rate", "seed")}
    refused(SOUND | axes, "space", "expected at most 10,000,000 networks of each seed; got 4e+16")
    unsampled = {place: value for place, value in SOUND.items() if place[0] != "sample"}
    refused(unsampled | axes, "space", "expected at most 1,000,000 networks, or a [sample]; got 2e+20")
    axes = {("space", "seed"): many, ("sample", "count"): "1_000_001"}
    refused(SOUND | axes, "sample.count", "expected at most 1,000,000; got 1000001")


@pytest.mark.parametrize("name", ["a\nb.toml", "\x1b[31m.toml", "\udcff.toml"])
def test_the_name_of_a_file_is_on_the_line_too(name, tmp_path):
    with pytest.raises(InvalidInputError) as caught:
        parse_spec("x = 1", name)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(f"{name!r}: x: unknown key")
    for file in (tmp_path / name, name, "a\0b"):
        with pytest.raises(InvalidInputError) as caught:
            load_spec(file)
        assert str(caught.value).isprintable()


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.times() | st.datetimes()
    | st.sampled_from(["digits", "mnist", "relu", "lbfgs", "sgd", "all", "none", "true", "uniform", 0, 1, 2, 50, 2**63]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


# Values that a key may well have, so that many specifications are sound, or wrong in what two keys say together.
LIKELY = {
    ("data", "name"): st.sampled_from(['"digits"', '"mnist"', '["mnist", "digits"]']),
    ("data", "crop"): st.integers(1, 9).map(str),
    ("data", "train_points"): st.integers(9, 1300).map(str),
    ("sample", "count"): st.integers(1, 5000).map(str),
    ("sample", "seed"): st.integers(0, 2**63 - 1).map(str),
    ("sample", "weight"): st.sampled_from(['"uniform"', '"inverse-cost"']),
    ("measure", "jacobian"): st.integers(0, 501).map(str) | st.just('"all"'),
    ("measure", "transitions"): st.integers(0, 501).map(str) | st.just('"all"'),
    ("measure", "transition_samples"): st.integers(2, 2**63 - 1).map(str),
    ("training", "steps"): st.integers(0, 300).map(str) | st.integers(0, 2**63 - 1).map(str),
    ("training", "checkpoint_steps"): st.integers(1, 300).map(str),
    ("training", "decay_every_epochs"): st.integers(1, 2**63 - 1).map(str),
    ("training", "stop_at_accuracy"): st.floats(0, 1).map(str),
    ("survey", "name"): st.text(max_size=5).map(toml),
}
WORDS = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS, "labels": LABELS, "augmentation": AUGMENTATIONS, "loss": LOSSES}
LIKELY |= {("space", key): st.lists(st.sampled_from(words), max_size=3, unique=True).map(toml) for key, words in WORDS.items()}
for key in ("width", "depth", "batch_size", "seed"):
    LIKELY["space", key] = st.lists(st.integers(1, 210) | st.integers(2, 2**63 - 1), max_size=3).map(toml)
for key in ("init_scale", "learning_rate"):
    LIKELY["space", key] = st.lists(st.floats(0, allow_infinity=False) | st.integers(1, 2**63 - 1), max_size=3).map(toml)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(sorted(LIKELY)), max_size=4).flatmap(
        lambda places: st.fixed_dictionaries({place: LIKELY[place] for place in places})
    )
)
def test_a_likely_specification_is_a_survey_or_is_refused_in_one_line(changes):
    is_survey_or_one_line(write(SOUND | changes))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(SOUND)), VALUES.map(toml), min_size=1, max_size=4))
def test_whatever_some_keys_are_set_to_the_answer_is_a_survey_or_one_line(changes):
    is_survey_or_one_line(write(SOUND | changes))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(SECTIONS)) | st.text(max_size=5), VALUES, max_size=5))
def test_whatever_a_document_holds_the_answer_is_a_survey_or_one_line(document):
    is_survey_or_one_line("\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items()))


TEXT = write(SOUND)
PIECES = st.text(alphabet="[]{}=.,'\"\\#-+_:\n\r\t\0 0123456789abcdefnxoT", max_size=6) | st.text(max_size=3)


@settings(max_examples=400)
@given(start=st.integers(0, len(TEXT)), length=st.integers(0, 40) | st.just(len(TEXT)), piece=PIECES)
def test_whatever_is_cut_out_of_a_text_or_put_in_the_answer_is_a_survey_or_one_line(start, length, piece):
    is_survey_or_one_line(TEXT[:start] + piece + TEXT[start + length :])


@settings(max_examples=100)
@given(st.text())
def test_any_text_is_a_survey_or_one_line(text):
    is_survey_or_one_line(text)


@pytest.fixture
def without_a_trace(run, tmp_path, monkeypatch):
    """Require that `run` and `plan` refuse a file with status 2 and one line, and leave nothing behind; return the line."""
    monkeypatch.chdir(tmp_path)
    # Where measured speeds and data sets would be kept.
    for variable in ("XDG_CACHE_HOME", "SENSITOMETER_DATA"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    file = tmp_path / NAME

    def without_a_trace(content):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        lines = []
        for arguments in (["run", NAME, "--out", "out"], ["run", file, "--out", tmp_path / "deep" / "out"], ["plan", NAME]):
            status, printed, line = run(*arguments)
            assert status == 2
            assert not printed
            assert line.endswith("\n")
            assert line[:-1].isprintable()
            assert line.startswith("sensitometer: ")
            assert NAME in line
            assert list(tmp_path.iterdir()) == [file]
            lines.append(line)
        assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
        assert lines[0] == lines[2]
        return lines[0]

    return without_a_trace


BROKEN = {
    "a string": (SOUND | {("space", "width"): r'"a\nb"'}, "space.width: "),
    "a name": (SOUND | {("survey", "name"): r'"a\nb"'}, "survey.name: "),
    "an element": (SOUND | {("space", "width"): "[4, 0]"}, "space.width[1]: "),
    "a huge integer": (SOUND | {("training", "steps"): HUGE[3]}, "training.steps: "),
    "an unknown key": (SOUND | {("measure", r'"a\nb"'): "1"}, r"measure.'a\nb': "),
    "a long string": (SOUND | {("sample", "weight"): STRINGS[-1]}, "sample.weight: "),
    "a count": (SOUND | {("sample", "count"): "100000"}, "sample.count: "),
    "crop": (SOUND | {("data", "crop"): "9"}, "data.crop: "),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_command_line_names_the_key_and_creates_nothing(without_a_trace, broken):
    values, path = BROKEN[broken]
    assert f"{NAME}: {path}" in without_a_trace(write(values))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", TEXT.encode("utf-16"), b"\0", TEXT.encode() + b"\x80", b"[" * 100_000, bytes(range(256))]
)
def test_the_command_line_refuses_files_that_are_no_text(without_a_trace, content):
    without_a_trace(content)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(sorted(SOUND)), data=st.data())
def test_the_command_line_names_whatever_key_is_broken(without_a_trace, place, data):
    value = data.draw(st.sampled_from(other_than(TAKEN[place])))
    assert f"{NAME}: {'.'.join(place)}: expected " in without_a_trace(write(SOUND | {place: value}))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, len(TEXT)))
def test_the_command_line_refuses_whatever_bytes_are_in_the_file(without_a_trace, junk, start):
    # 0xff is in no UTF-8.
    without_a_trace(TEXT[:start].encode() + junk + b"\xff")
