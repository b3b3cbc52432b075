"""Query expansion and re-ranking on an index are those of the ranking room on its rows."""

from __future__ import annotations

import numpy as np
import pytest

from coocnet.errors import InputError
from coocnet.index import open_index
from coocnet.ranking import EXPANSIONS, RERANKINGS, neighbours
from indexing import sync


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
    options = {"alpha": 2.0} if expansion == "alpha-qe" else {}
    expanded = EXPANSIONS[expansion](whitened_rows, whitened_rows[:3], n=4, **options)
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


def test_a_threshold_after_a_re_ranking_leaves_out_what_is_less_similar(whitened) -> None:
    index, rows, _ = whitened
    hits = index.search(rows[:1], k=18, reranking="reciprocal", threshold=0.5)[0]
    assert hits
    assert all(hit.similarity >= 0.5 for hit in hits)


def test_weights_by_similarity_are_refused_on_rows_that_were_never_whitened(place, photos, recipe, describer) -> None:
    sync(place, photos, recipe, describer)
    row = describer.describe(sorted(photos.iterdir())[:1])
    with open_index(place) as index, pytest.raises(InputError, match="never whitened"):
        index.search(row, k=5, expansion="alpha-qe")
