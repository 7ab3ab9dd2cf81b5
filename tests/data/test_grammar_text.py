import hashlib

from data.grammar_text import SEED, SENTENCES, Grammar

SHA256 = "c1dacd52aa59024990ad1891cc3d359881854ad62b24991eaf99fb664f857073"


def test_text_is_the_same_everywhere():
    text = Grammar(SEED).text(SENTENCES)
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256
    assert text.count(".") == SENTENCES


def test_seeds_make_other_texts():
    assert Grammar(0).text(20) != Grammar(1).text(20)


def test_quotations_close_and_sentences_end():
    for paragraph in Grammar(3).text(200).splitlines():
        assert paragraph.count('"') % 2 == 0
        assert paragraph.endswith((".", '."'))
        assert paragraph[0].isupper()


def test_paragraphs_keep_their_narrator():
    names = {"Ada", "Grace", "Emmy", "Sofia", "Carl", "Alan"}
    found = [{word for word in line.split() if word in names} for line in Grammar(0).text(2000).splitlines()]
    assert max(len(each) for each in found) == 1
    assert set().union(*found) == names
