"""Plain words as Markdown, by hand."""

import pytest

from rediffuse.evaluation.markdown import details, escape, fenced, table


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("recall@20 is item_knn's 0.18", "recall@20 is item_knn's 0.18"),
        ("_a_ __b__", r"\_a\_ \_\_b\_\_"),
        ("*a* `b` ~~c~~ $d$", r"\*a\* \`b\` \~\~c\~\~ \$d\$"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("---", r"\---"),
        ("===", r"\==="),
        ("12. a", r"12\. a"),
        ("1) a", r"1\) a"),
        ("-0.5", "-0.5"),
        ("> a", "&gt; a"),
        ("a\n\n# b\tc", r"a \# b c"),
        ("@bob a@b.de", "&#64;bob a&#64;b.de"),
        ("HTTPS://a.b www.c.d", "HTTPS:&#47;&#47;a.b www&#46;c.d"),
        ("", ""),
    ],
)
def test_words_stay_words(plain, shown):
    assert escape(plain) == shown


def test_a_table_by_hand():
    assert table(["a", "b"], [["x", "1"], ["y", "2"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n| y | 2 |"
    assert table(["a", "b"], [], left=(0, 1)) == "| a | b |\n| --- | --- |"


def test_a_fence_is_longer_than_any_inside():
    assert fenced("a") == "```\na\n```"
    assert fenced("a\n````\nb", "bash") == "`````bash\na\n````\nb\n`````"


def test_details_escape_their_summary():
    assert details("<a>", "**b**") == "<details>\n<summary>&lt;a&gt;</summary>\n\n**b**\n\n</details>"
