import pytest
import references
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothout.noise.philox import fold, philox4x32

words = st.integers(0, 2**32 - 1)

# Known answers that the authors of Philox publish with their Random123 library.
KNOWN = [
    (10, (0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, (0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        10,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
    (7, (0, 0, 0, 0), (0, 0), "5f6fb709 0d893f64 4f121f81 4f730a48"),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), KNOWN)
def test_known_answers(rounds, counter, key, expected):
    assert " ".join(f"{word:08x}" for word in philox4x32(counter, key, rounds)) == expected


@given(counter=st.tuples(words, words, words, words), key=st.tuples(words, words))
def test_tensors_ints_and_reference_agree(counter, key):
    tensors = tuple(torch.tensor([word, 1]) for word in counter)
    expected = references.philox(counter, key)
    assert philox4x32(counter, key) == expected
    assert tuple(int(word[0]) for word in philox4x32(tensors, key)) == expected


@given(seed=st.integers(0, 2**64 - 1), parts=st.lists(words, min_size=1, max_size=4))
def test_fold_is_64_bits_and_depends_on_every_part(seed, parts):
    value = fold(seed, *parts)
    assert 0 <= value < 2**64
    assert value == fold(seed, *parts)
    for place in range(len(parts)):
        other = [*parts[:place], parts[place] ^ 1, *parts[place + 1 :]]
        assert fold(seed, *other) != value
    assert fold(seed ^ (1 << 63), *parts) != value
