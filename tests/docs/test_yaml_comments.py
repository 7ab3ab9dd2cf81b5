"""Comments of a YAML file belong to the key that they stand beside or below."""

from pathlib import Path

from docs.generate.yaml_comments import Key, header, keys

TEXT = """\
# What the option is,
# in two lines.
_target_: a.B
first: null        # one line
                   #   and another
second: [1, "#2"]  # has a # in it
section:           # of others
  inner: 1.0       # inside
# of the next key
third: x
"""


def test_comments_belong_to_their_keys(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(TEXT)
    assert header(tmp_path / "a.yaml") == "What the option is, in two lines."
    assert keys(tmp_path / "a.yaml") == [
        Key("first", "null", "one line and another"),
        Key("second", '[1, "#2"]', "has a # in it"),
        Key("section", "", "of others"),
        Key("section.inner", "1.0", "inside"),
        Key("third", "x", ""),
    ]
    assert keys(tmp_path / "a.yaml", below="section") == [Key("inner", "1.0", "inside")]
