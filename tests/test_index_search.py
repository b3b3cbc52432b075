"""Query expansion, re-ranking and relevant pictures on an index are those of the ranking room on its rows."""

from __future__ import annotations

import numpy as np
import pytest

from coocnet.describe import Describer
from coocnet.errors import InputError
from coocnet.index import open_index
from coocnet.ranking import EXPANSIONS, RERANKINGS, augment_database, neighbours, similarity_cut
from indexing import named, put, sync, synthetic_rows
from reference_ranking import unit


@pytest.fixture
def whitened(place, photos, recipe, describer):
    """An index with a whitening, and its rows in order of path."""
    sync(place, photos, recipe, describer)
    with open_index(place, recipe.replace(expansion_neighbours=4, expansion_alpha=2.0)) as index:
        index.learn_whitening(dim=6, shrinkage=1.0)
        rows = describer.describe(sorted(photos.iterdir()))
        yield index, rows, index.whitening().apply(rows)


@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_an_expansion_searches_with_the_expanded_query(whitened, photos, expansion) -> None:
    index, rows, whitened_rows = whitened
    expanded = EXPANSIONS[expansion](whitened_rows, whitened_rows[:3], n=4, alpha=2.0)
    expected = neighbours(whitened_rows, expanded, k=18)
    for hits, positions, scores in zip(
        index.search(rows[:3], k=18, expansion=expansion), expected.positions, expected.scores, strict=True
    ):
        assert [hit.path for hit in hits] == [str(sorted(photos.iterdir())[at]) for at in positions]
        np.testing.assert_allclose([hit.similarity for hit in hits], scores, atol=1e-5)


@pytest.mark.parametrize("reranking", RERANKINGS)
def test_a_re_ranking_orders_the_hits_and_keeps_their_similarities(whitened, photos, reranking) -> None:
    index, rows, whitened_rows = whitened
    paths = [str(path) for path in sorted(photos.iterdir())]
    expected = RERANKINGS[reranking](whitened_rows).rank(whitened_rows[:3], k=100)
    for at, hits in enumerate(index.search(rows[:3], k=18, reranking=reranking)):
        positions = [paths.index(hit.path) for hit in hits]
        assert positions == expected.positions[at, :18].tolist()
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        np.testing.assert_allclose(
            [hit.similarity for hit in hits], whitened_rows[positions] @ whitened_rows[at], atol=1e-5
        )


def test_the_recipes_expansion_is_used_unless_another_is_asked_for(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    row = describer.describe(sorted(photos.iterdir())[:1])
    with open_index(place, recipe.replace(expansion="aqe")) as index:
        assert index.search(row, k=5) == index.search(row, k=5, expansion="aqe")
        assert index.search(row, k=5) != index.search(row, k=5, expansion="none")


@pytest.mark.parametrize("reranking", RERANKINGS)
@pytest.mark.parametrize("k", [1, 3, 18])
def test_a_threshold_and_a_re_ranking_lose_no_hit_between_them(whitened, reranking, k) -> None:
    index, rows, _ = whitened
    everything = index.search(rows, k=18, reranking=reranking)
    for threshold in (-0.2, 0.3, 0.9):
        for hits, whole in zip(
            index.search(rows, k=k, reranking=reranking, threshold=threshold), everything, strict=True
        ):
            expected = [hit.path for hit in whole if hit.similarity >= threshold][:k]
            assert [hit.path for hit in hits] == expected
    passing = index.search(rows, k=1, reranking=reranking, threshold=0.9)
    assert all(passing), "every picture finds itself"


def test_what_is_re_ranked_does_not_depend_on_how_much_is_shown(whitened) -> None:
    index, rows, _ = whitened
    for few, many in zip(
        index.search(rows, k=2, reranking="reciprocal"), index.search(rows, k=18, reranking="reciprocal"), strict=True
    ):
        assert few == many[:2]


def test_augmentation_searches_in_the_augmented_rows(whitened, photos) -> None:
    index, rows, whitened_rows = whitened
    augmented = augment_database(whitened_rows, n=4, alpha=2.0)
    expected = neighbours(augmented, whitened_rows[:3], k=18)
    paths = [str(path) for path in sorted(photos.iterdir())]
    for hits, positions, scores in zip(
        index.search(rows[:3], k=18, augmentation=True), expected.positions, expected.scores, strict=True
    ):
        assert [hit.path for hit in hits] == [paths[at] for at in positions]
        np.testing.assert_allclose([hit.similarity for hit in hits], scores, atol=1e-5)
    assert index.search(rows[:3], k=18, augmentation=True) != index.search(rows[:3], k=18)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("options", [{"reranking": "diffusion"}, {"reranking": "reciprocal"}, {"augmentation": True}])
def test_what_was_prepared_answers_as_if_it_were_made_anew(whitened, offline, options) -> None:
    index, rows, _ = whitened
    before = index.search(rows, k=18, **options)
    index.prepare_reranking(offline=offline)
    held = index._searchable.gallery().prepared
    assert (held.solved is not None) == offline
    assert index.search(rows, k=18, **options) == before


def test_what_was_prepared_is_left_unused_when_the_collection_has_changed(whitened, photos, describer) -> None:
    index, rows, _ = whitened
    index.prepare_reranking()
    assert index._searchable.gallery().prepared is not None
    sorted(photos.iterdir())[0].unlink()
    index.sync(photos, describer=describer)
    assert index._searchable.gallery().prepared is None
    assert len(index.search(rows[:1], k=18, reranking="reciprocal")[0]) == 17


def test_a_damaged_preparation_is_made_anew(whitened) -> None:
    index, rows, _ = whitened
    before = index.search(rows[:3], k=5, reranking="diffusion")
    index.prepare_reranking()
    kept = index._store.location / "neighbours.npz"
    kept.write_bytes(kept.read_bytes()[:100])
    index._searchable.forget()
    assert index.search(rows[:3], k=5, reranking="diffusion") == before


@pytest.mark.parametrize(
    "options", [{"expansion": "alpha-qe"}, {"augmentation": True}, {"reranking": "diffusion"}], ids=str
)
@pytest.mark.parametrize("pooling", ["chco-sct", "bp-at"])
def test_weights_by_similarity_are_refused_on_rows_that_were_never_whitened(
    place, photos, recipe, options, pooling
) -> None:
    chosen = recipe.replace(pooling=pooling, sketch_dim=64)
    describer = Describer(chosen)
    sync(place, photos, chosen, describer)
    row = describer.describe(sorted(photos.iterdir())[:1])
    with open_index(place) as index:
        with pytest.raises(InputError, match="never whitened"):
            index.search(row, k=5, **options)
        with pytest.raises(InputError, match="never whitened"):
            index.prepare_reranking(offline=True)
        index.prepare_reranking()
        with pytest.raises(InputError, match="never whitened"):
            index.search(row, k=5, **options)


def test_centred_rows_count_as_whitened(place, photos, recipe) -> None:
    chosen = recipe.replace(pooling="centred", sketch_dim=64)
    describer = Describer(chosen)
    sync(place, photos, chosen, describer)
    with open_index(place) as index:
        assert index.search(describer.describe(sorted(photos.iterdir())[:1]), k=5, expansion="alpha-qe")[0]


@pytest.mark.parametrize("options", [{"expansion": "some"}, {"reranking": "some"}])
def test_unknown_names_are_refused_even_where_there_is_nothing_to_find(place, recipe, options) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match="'some'"):
        index.search(np.zeros((1, 4), np.float32), k=1, **options)


# Relevant pictures


def digests_in_order(index) -> list[bytes]:
    return [digest for _, digest in index.listing(offset=0, limit=100_000)[1]]


@pytest.mark.parametrize("expansion", ["none", "aqe"])
def test_relevant_pictures_move_the_query_to_their_mean(whitened, expansion) -> None:
    index, rows, whitened_rows = whitened
    digests = digests_in_order(index)
    chosen = [[7, 4], [], [12]]
    moved = np.stack(
        [unit(sum((whitened_rows[i] for i in some), whitened_rows[at])) for at, some in enumerate(chosen)]
    ).astype(np.float32)
    if expansion == "aqe":
        moved = EXPANSIONS["aqe"](whitened_rows, moved, n=4, alpha=2.0)
    expected = neighbours(whitened_rows, moved, k=18)
    relevant = [[digests[i] for i in some] for some in chosen]
    found = index.search(rows[:3], k=18, relevant=relevant, expansion=expansion)
    for hits, positions, scores in zip(found, expected.positions, expected.scores, strict=True):
        assert [hit.digest for hit in hits] == [digests[at] for at in positions]
        np.testing.assert_allclose([hit.similarity for hit in hits], scores, atol=1e-5)
    assert found[1] == index.search(rows[:3], k=18, expansion=expansion)[1]


@pytest.mark.slow
def test_a_blank_query_becomes_the_mean_of_its_relevant_pictures(whitened) -> None:
    index, rows, whitened_rows = whitened
    digests = digests_in_order(index)
    hits = index.search(np.zeros_like(rows[:1]), k=18, relevant=[[digests[3], digests[8], digests[3]]])[0]
    mean = unit(whitened_rows[3] + whitened_rows[8])
    np.testing.assert_allclose(
        [hit.similarity for hit in hits], [whitened_rows[digests.index(hit.digest)] @ mean for hit in hits], atol=1e-5
    )


def test_fewer_dimensions_hold_for_relevant_pictures_too(whitened) -> None:
    index, rows, whitened_rows = whitened
    digests = digests_in_order(index)
    few = np.stack([unit(row) for row in whitened_rows[:, :3]])
    best = index.search(rows[:1], k=18, dim=3, relevant=[[digests[8]]])[0]
    mean = unit(few[0] + few[8])
    np.testing.assert_allclose(
        [hit.similarity for hit in best], [few[digests.index(hit.digest)] @ mean for hit in best], atol=1e-5
    )


def test_the_learned_threshold_is_reached_by_the_query_or_a_relevant_picture(place) -> None:
    rows = synthetic_rows(300)
    put(place, named(rows))
    with open_index(place) as index:
        digests = digests_in_order(index)
        by_digest = {digest: index.row_of(digest) for digest in digests}
        queries = rows[:6]
        relevant = [digests[3 * at : 3 * at + at] for at in range(6)]
        cut = similarity_cut(np.stack([by_digest[digest] for digest in digests]))
        kept = 0
        for query, some, hits, whole in zip(
            queries,
            relevant,
            index.search(queries, k=300, threshold="auto", relevant=relevant),
            index.search(queries, k=300, relevant=relevant),
            strict=True,
        ):
            tests = [query, *(by_digest[digest] for digest in some)]
            expected = [
                hit.digest for hit in whole if max(float(by_digest[hit.digest] @ row) for row in tests) >= cut
            ]
            assert [hit.digest for hit in hits] == expected
            kept += len(expected)
        assert 0 < kept < 6 * 300


def test_relevant_contents_that_are_not_there_are_quoted(whitened) -> None:
    index, rows, _ = whitened
    known = digests_in_order(index)[0]
    with pytest.raises(InputError, match="ab" * 16):
        index.search(rows[:1], k=3, relevant=[[known, b"\xab" * 16]])
    with pytest.raises(InputError, match="one list for each of 2 rows"):
        index.search(rows[:2], k=3, relevant=[[known]])
    with pytest.raises(InputError, match="digests"):
        index.search(rows[:1], k=3, relevant=[known])


def test_relevant_contents_are_looked_for_even_in_an_empty_index(place, recipe) -> None:
    with open_index(place, recipe) as index, pytest.raises(InputError, match="ab" * 16):
        index.search(np.zeros((1, 4), np.float32), k=1, relevant=[[b"\xab" * 16]])
