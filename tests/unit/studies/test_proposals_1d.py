"""The 1D experiments with learned proposals: data, networks, what trains what, and the study's files."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from ebmtrack.errors import ConfigError
from ebmtrack.studies.energy_1d import train
from ebmtrack.studies.energy_1d_methods import ManyLinear, StudyCell, StudySettings
from ebmtrack.studies.proposals_1d import PAPER_IV, make_table, study_proposals
from ebmtrack.studies.proposals_1d_methods import (
    METHODS,
    ManyMDNs,
    ManyProposed,
    ManyReluEnergies,
    heterogeneous_data,
    negative_log_likelihood,
)

TINY = StudySettings(epochs=1, batch=16, examples=40, grid=16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_heterogeneous_data_have_the_four_zones():
    """All 3800 points once; each zone has the range that the specification gives it."""
    parts = heterogeneous_data()
    assert {name: len(x) for name, (x, _) in parts.items()} == {"train": 1710, "validation": 190, "test": 1900}
    x, y = (torch.cat([part[i] for part in parts.values()]) for i in (0, 1))
    order = x.argsort()
    assert torch.equal((x[order] * 3799).round(), torch.arange(3800.0))
    asymmetric, symmetric, uniform, multimodal = y[order].split([800, 1000, 500, 1500])
    assert asymmetric.min() >= 0.5 and asymmetric.max() <= 5.5
    assert symmetric[:100].mean() == pytest.approx(0.877, abs=0.06)  # of 3 cos x - 2 for x from 0 to 0.5
    low = torch.linspace(-2, -4.5, 500)
    assert bool((uniform >= low).all()) and bool((uniform <= torch.linspace(-0.5, 9, 500)).all())
    in_band = [(multimodal >= a) & (multimodal < b) for a, b in ((8, 8.5), (1, 4), (-4.5, -3))]
    assert [int(band.sum()) for band in in_band] == [500, 500, 500]


def test_heterogeneous_data_are_reproducible_to_the_bit():
    """The global legacy generator, as the released code uses it, gives the same first zone and the same split."""
    np.random.seed(41)
    zone = 5 * np.random.beta(0.5, 1, 800) + 0.5
    np.random.shuffle(zone)
    x, y = (torch.cat([part[i] for part in heterogeneous_data().values()]) for i in (0, 1))
    assert torch.equal(y[x.argsort()][:800], torch.from_numpy(zone).float())
    digest = hashlib.sha256(np.stack([v.numpy() for v in heterogeneous_data()["test"]]).tobytes()).hexdigest()
    assert digest[:16] == "ae9ccc47f240401a"


def plain_layer(layer: ManyLinear, run: int) -> nn.Linear:
    plain = nn.Linear(layer.weight.shape[2], layer.weight.shape[1])
    plain.load_state_dict({"weight": layer.weight[run].detach(), "bias": layer.bias[run, :, 0].detach()})
    return plain


def test_batched_energies_are_the_papers_network_run_by_run():
    """The specification's layers written with torch.nn.Linear on concatenated features."""
    net = ManyReluEnergies(2, generator())
    x, y = torch.randn(2, 4), torch.randn(2, 4, 5)
    f = net(x, y)
    for run in range(2):
        rows = lambda stack, v: plain_layer(stack[2], run)(plain_layer(stack[0], run)(v).relu()).relu()  # noqa: E731,B023
        h_x = rows(net.x, x[run, :, None, None]).expand(4, 5, 10)
        h = plain_layer(net.join, run)(torch.cat([h_x, rows(net.y, y[run, ..., None])], dim=-1)).relu()
        h = plain_layer(net.skip, run)(h).relu() + h
        torch.testing.assert_close(f[run], plain_layer(net.last, run)(h).squeeze(-1))


@pytest.mark.parametrize("method", METHODS)
def test_every_part_of_every_method_trains(method):
    """Each weight has a gradient, but the energy's last bias and the logits of K = 1, which change no density."""
    fresh = PAPER_IV[1].build(StudyCell(method, 8), 2, generator())
    net = train(StudyCell(method, 8), [(1, 0), (1, 1)], TINY, "cpu", design=PAPER_IV[1])
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert {n for n, _ in fresh.named_parameters()} == {n for n, _ in net.named_parameters()}
    x, y = torch.randn(2, 2, 32, generator=generator())
    gradients = torch.autograd.grad(fresh.loss(x, y, 8, generator()).sum(), list(fresh.parameters()))
    idle = {n for (n, _), g in zip(fresh.named_parameters(), gradients) if not bool(g.abs().sum() > 1e-5)}
    assert all("last.bias" in n or (method.endswith("-k1") and "logits" in n) for n in idle), idle


def test_the_proposal_does_not_train_the_features():
    """Detach rule 1: the features' gradient does not change with the proposal's heads' loss."""
    net, x, y = ManyProposed(1, 4, generator()), torch.randn(1, 8), torch.randn(1, 8)
    first = torch.autograd.grad(net.loss(x, y, 16, generator()).sum(), list(net.energy.x.parameters()))
    g = net.energy.features(x)
    assert all(bool(p.abs().sum() > 0) for p in first)
    q = net.heads(g.detach())
    assert torch.autograd.grad(q.log_prob(y[..., None, None]).sum(), g, allow_unused=True)[0] is None


def test_nll_of_a_mixture_is_its_exact_one():
    """The grid's log Z of a normalised density is 0 when it fits into the range."""
    net = ManyMDNs(2, 2, generator())
    x, y = (v.expand(2, -1) for v in heterogeneous_data()["test"])
    exact = -net(x, y[..., None]).squeeze(-1).mean(dim=1)
    torch.testing.assert_close(negative_log_likelihood(net, 2, 4000), exact, atol=2e-3, rtol=0)


def test_study_writes_a_table_and_goes_on(tmp_path):
    """A second call with more runs trains the missing ones alone."""
    lines = []
    arguments = {"methods": ("learned-k4", "mdn-k1"), "samples": 8, "device": "cpu", "settings": TINY}
    study_proposals(tmp_path, runs=1, log=lines.append, **arguments)
    table = study_proposals(tmp_path, runs=2, log=lines.append, **arguments)
    assert len(lines) == 8 and all(": 1 runs" in line for line in lines)
    assert [line.split("|")[1].strip() for line in table.splitlines()[5:]] == ["learned-k4", "mdn-k1"]
    assert (tmp_path / "densities.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="did you mean 'learned-k4'"):
        study_proposals(tmp_path, methods=("learned-k44",), settings=TINY)
    for name in ("runs", "samples"):
        with pytest.raises(ConfigError, match=f"--{name} must be at least 1, got 0"):
            study_proposals(tmp_path, settings=TINY, **{name: 0})


def test_failed_runs_count_as_infinite():
    runs = [{"dataset": d, "run": r, "kl": [0.1, 0.3, 0.2, None][r]} for d in (1, 2) for r in range(4)]
    record = {"method": "fixed", "samples": 8, "seconds": 8.0, "runs": runs}
    row = make_table([record], TINY).splitlines()[-1]
    assert row.startswith("| fixed | 8 | 0.100, ") and "), 4 |" in row
