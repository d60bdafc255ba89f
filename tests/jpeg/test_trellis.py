"""The choice wins nearly as much as the best of all, means are the best of all, and silence stays silence."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._jpeg import cosine
from norbert_store._jpeg.cosine import forward, inverse, steps_of
from norbert_store._jpeg.encoder import quantisation_table
from norbert_store._jpeg.entropy import CodeLengths, encode_coefficients
from norbert_store._jpeg.stream import decode
from norbert_store._jpeg.trellis import quantise

TABLE = quantisation_table(70)
quick = settings(max_examples=60)


def music(rows=64, columns=96, seed=0):
    """Ridges along time over noise that falls off, as levels (rows, columns)."""
    time, frequency = np.mgrid[:rows, :columns]
    ridges = 60 * np.clip(np.sin(frequency / 3), 0, 1) * (1 + np.cos(time / 20)) * np.exp(-frequency / 60)
    noise = np.random.default_rng(seed).gamma(2, 8, (rows, columns)) * np.exp(-frequency / 100)
    return np.clip(ridges + noise, 0, 255).astype(np.float32)


def cost(coefficients, quantised, table, weight, price, lengths):
    """What `quantise` makes small, bit for bit."""
    error = (weight * (coefficients - quantised * steps_of(table)) ** 2).sum()
    bits = 0.0
    for row in quantised.reshape(-1, *quantised.shape[-2:]).tolist():
        mean = 0
        for block in row:
            bits += lengths.means[abs(block[0] - mean).bit_length()]
            mean, zeros = block[0], 0
            for value in block[1:]:
                if value:
                    bits += lengths.bits[abs(value).bit_length(), zeros]
                zeros = 0 if value else zeros + 1
            bits += lengths.end if zeros else 0
    return error + price * bits


def some_lengths():
    return CodeLengths.of(cosine.quantise(forward(music()), TABLE))


def chosen(coefficients, table, weight, price):
    """With the code lengths of what rounding gives."""
    return quantise(coefficients, table, weight, price, CodeLengths.of(cosine.quantise(coefficients, table)))


def least_cost(coefficients, choices, price, lengths):
    """Least cost of all combinations of choices {place: multiples}, all other multiples zero."""
    quantised = np.zeros(coefficients.shape, np.int16)
    costs = []
    for values in product(*choices.values()):
        quantised.ravel()[list(choices)] = values
        costs.append(cost(coefficients, quantised, TABLE, 1.0, price, lengths))
    return min(costs)


def best_of_all(coefficients, quantised, table, price, lengths):
    """What `quantise` comes close to: the best multiples of all but means, block for block, by dynamic programming."""
    scale = steps_of(table) ** 2 / price
    exact = quantised.copy()
    exact[..., 1:] = 0
    for block, ratio in zip(exact.reshape(-1, 64), (coefficients / steps_of(table)).reshape(-1, 64), strict=True):
        # least cost, in bits, if this coefficient is the last that isn't zero; its multiple, and the one before it
        best = {0: (0.0, 0, 0)}
        for place in map(int, np.flatnonzero(np.rint(ratio[1:])) + 1):
            size = abs(ratio[place])
            best[place] = min(
                (cost + lengths.bits[value.bit_length(), place - before - 1] - gain, value, before)
                for value in range(max(1, round(size) - 1), round(size) + 1)
                for gain in [scale[place] * (size**2 - (size - value) ** 2)]
                for before, (cost, *_) in best.items()
            )
        last = min(best, key=lambda place: best[place][0] + (lengths.end if place < 63 else 0))
        while last:
            _, value, before = best[last]
            block[last] = value * np.sign(ratio[last])
            last = before
    return exact


@quick
@given(
    st.dictionaries(st.integers(1, 63) | st.just(63), st.floats(-6, 6), max_size=5),
    st.floats(1, 1000),
)
def test_what_is_compared_with_is_the_best_of_all(sizes, price):
    coefficients, lengths = np.zeros((1, 1, 64), np.float32), some_lengths()
    for place, size in sizes.items():
        coefficients[0, 0, place] = size * steps_of(TABLE)[place]
    rounded = cosine.quantise(coefficients, TABLE)
    places = np.flatnonzero(rounded)
    choices = {0: {0}}
    for place, value in zip(places.tolist(), rounded.ravel()[places].tolist(), strict=True):
        choices[place] = {value, value - np.sign(value), 0}
    least = least_cost(coefficients, choices, price, lengths)
    exact = best_of_all(coefficients, np.zeros_like(rounded), TABLE, price, lengths)
    assert cost(coefficients, exact, TABLE, 1.0, price, lengths) == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize("means", [[1.45, -2.6, 6.55, 7.5], [4.4, 4.4], [-8.4]])
def test_means_are_the_best_of_all_at_every_price(means):
    coefficients, lengths = np.zeros((1, len(means), 64), np.float32), some_lengths()
    coefficients[..., 0] = np.array(means) * steps_of(TABLE)[0]
    nearest = np.rint(means).astype(int).tolist()
    choices = {64 * n: {value - 1, value, value + 1} for n, value in enumerate(nearest)}
    for price in np.geomspace(0.1, 300, 40):
        least = least_cost(coefficients, choices, price, lengths)
        found = quantise(coefficients, TABLE, 1.0, price, lengths)
        assert cost(coefficients, found, TABLE, 1.0, price, lengths) == pytest.approx(least, rel=1e-5)


@pytest.mark.parametrize("price", [5, 50, 500])
def test_the_choice_wins_nearly_as_much_as_the_best_of_all(price):
    coefficients = forward(music())
    rounded = cosine.quantise(coefficients, TABLE)
    lengths = CodeLengths.of(rounded)
    found = quantise(coefficients, TABLE, 1, price, lengths)
    exact = best_of_all(coefficients, found, TABLE, price, lengths)
    worst, rough, best = (cost(coefficients, one, TABLE, 1, price, lengths) for one in (rounded, found, exact))
    assert best <= rough
    assert worst - rough > 0.95 * (worst - best) > 0


def test_fewer_bytes_at_the_same_error():
    """Against a coarser table, which is the other way to save bytes."""
    image = music(128, 192)
    coefficients = forward(image)
    weighed = chosen(coefficients, TABLE, 1.0, 0.15 * TABLE[1, 0] ** 2)
    error = np.square(coefficients - weighed * steps_of(TABLE)).sum()
    for quality in np.arange(70, 40, -0.5):
        table = quantisation_table(quality)
        plain = cosine.quantise(coefficients, table)
        if np.square(coefficients - plain * steps_of(table)).sum() >= error:
            break
    size = len(encode_coefficients(weighed, TABLE, 128, 192))
    assert size < 0.97 * len(encode_coefficients(plain, table, 128, 192))


def test_price_moves_from_error_to_bytes():
    coefficients = forward(music())
    sizes, errors = [], []
    for price in (0, 1, 10, 100, 1000, 10000):
        quantised = chosen(coefficients, TABLE, 1.0, price)
        sizes.append(len(encode_coefficients(quantised, TABLE, 64, 96)))
        errors.append(float(np.square(coefficients - quantised * steps_of(TABLE)).sum()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert np.array_equal(chosen(coefficients, TABLE, 1.0, 0), cosine.quantise(coefficients, TABLE))


def test_only_weight_over_price_counts():
    coefficients, lengths = forward(music()), some_lengths()
    one = quantise(coefficients, TABLE, 1.0, 64.0, lengths)
    other = quantise(coefficients, TABLE, 0.25, 16.0, lengths)
    assert np.array_equal(one, other)


def test_weights_of_blocks_and_of_coefficients():
    coefficients, lengths = forward(music()), some_lengths()
    uniform = quantise(coefficients, TABLE, 1.0, 60.0, lengths)
    for shape in [(8, 12, 1), (8, 12, 64), (1, 1, 64), (12, 1)]:
        weight = np.ones(shape, np.float32)
        assert np.array_equal(quantise(coefficients, TABLE, weight, 60.0, lengths), uniform)
    weight = np.ones((8, 12, 1), np.float32)
    weight[:, 6:] = 1e6
    half = quantise(coefficients, TABLE, weight, 60.0, lengths)
    assert np.array_equal(half[:, 6:, 1:], cosine.quantise(coefficients, TABLE)[:, 6:, 1:])
    assert np.array_equal(half[:, :6, 1:], uniform[:, :6, 1:])


def test_a_weight_of_zero_leaves_nothing_but_means():
    quantised = chosen(forward(music()), TABLE, 0.0, 1.0)
    assert not quantised[..., 1:].any()
    assert decode(encode_coefficients(quantised, TABLE, 64, 96)).shape == (64, 96)


@pytest.mark.parametrize("quality", [0, 40, 61.5, 80, 100])
@pytest.mark.parametrize("price", [0.01, 10.0, 1e6])
def test_silence_stays_silence(quality, price):
    table = quantisation_table(quality)
    image = np.zeros((24, 48), np.float32)
    image[:, 24:] = music(24, 24)
    quantised = chosen(forward(image), table, 1.0, price)
    decoded = decode(encode_coefficients(quantised, table, 24, 48))
    assert not decoded[:, :24].any()


@pytest.mark.parametrize("level", [0.0, 128.0, 255.0])
def test_an_image_without_any_change(level):
    image = np.full((8, 8), level, np.float32)
    ones = np.ones((8, 8), np.uint8)
    quantised = chosen(forward(image), ones, 1.0, 1.0)
    assert np.abs(inverse(quantised, 8, 8) - level).max() < 1


def test_full_blocks_and_the_largest_values():
    coefficients = np.random.default_rng(0).normal(0, 3000, (2, 3, 64)).astype(np.float32)
    quantised = chosen(coefficients, np.ones((8, 8)), 1.0, 0.001)
    assert np.abs(quantised[..., 1:]).max() == 1023
    assert len(encode_coefficients(quantised, np.ones((8, 8), np.uint8), 16, 24))


def test_the_same_again():
    coefficients = forward(music())
    before = coefficients.copy()
    first, second = (chosen(coefficients, TABLE, 1.0, 30.0) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(coefficients, before)


@pytest.mark.parametrize("price", [-1.0, np.nan])
def test_a_price_below_zero_is_refused(price):
    with pytest.raises(ValueError, match="price must be a number from 0 up, found"):
        chosen(forward(music()), TABLE, 1.0, price)
