"""The 1D study: its data, its batched networks, its D_KL, and that a killed study goes on where it
stopped."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from torch import nn

from ebmtrack.energy import losses
from ebmtrack.energy.density import log_z_grid
from ebmtrack.errors import ConfigError, ResultError
from ebmtrack.studies import energy_1d as study1d
from ebmtrack.studies import energy_1d_methods as methods
from ebmtrack.studies import energy_1d_report as study1d_report
from ebmtrack.studies.energy_1d import divergences, study_1d, train
from ebmtrack.studies.energy_1d_methods import (
    METHODS,
    ManyEnergies,
    ManyGaussians,
    StudyCell,
    StudySettings,
    log_density,
    make_data,
)

TINY = StudySettings(epochs=1, batch=16, examples=40, grid=32)


@pytest.mark.parametrize("dataset", [1, 2])
def test_true_densities_integrate_to_one(dataset):
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    y = torch.linspace(-3, 6, 9001, dtype=torch.float64)
    log_z = log_z_grid(log_density(dataset, x, y), y)
    torch.testing.assert_close(log_z, torch.zeros(13, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dataset", [1, 2])
def test_examples_follow_the_true_density(dataset):
    """The mean of -log p(y_i|x_i) over 50,000 examples is the entropy averaged over x, here from quadrature;
    its deviation is below 1 / sqrt(50,000) = 0.0045 times a small number."""
    x, y = make_data(dataset, 50_000)
    assert x.min() >= -3 and x.max() <= 3 and abs(x.mean()) < 0.03
    grid_x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    grid_y = torch.linspace(-3, 6, 6001, dtype=torch.float64)
    log_p = log_density(dataset, grid_x, grid_y)
    minus = torch.where(log_p > -300, -log_p * log_p.exp(), 0.0)
    entropy = torch.trapezoid(minus, grid_y, dim=1).mean().item()
    assert -log_density(dataset, x, y).mean().item() == pytest.approx(entropy, abs=0.02)


def plain_layer(layer: methods.ManyLinear, run: int) -> nn.Linear:
    """Run `run` of a batched layer as an ordinary one."""
    plain = nn.Linear(layer.weight.shape[2], layer.weight.shape[1])
    plain.load_state_dict({"weight": layer.weight[run].detach(), "bias": layer.bias[run, :, 0].detach()})
    return plain


def test_batched_networks_are_the_papers_network_run_by_run():
    """B.2 written with torch.nn.Linear on concatenated features, one run and one pair (x, y) at a time."""
    net = ManyEnergies(3, torch.Generator().manual_seed(0))
    x, y = torch.randn(3, 4), torch.randn(3, 4, 5)
    f = net(x, y)
    for run in range(3):
        layers = {name: plain_layer(layer, run) for name, layer in net.named_children()}
        h_x = layers["x2"](layers["x1"](x[run, :, None, None]).relu()).relu().expand(4, 5, 10)
        h = layers["join"](torch.cat([h_x, layers["y1"](y[run, ..., None]).tanh()], dim=-1)).tanh()
        h = layers["skip1"](h).tanh() + h
        h = layers["skip2"](h).tanh() + h
        torch.testing.assert_close(f[run], layers["last"](h).squeeze(-1))
    torch.testing.assert_close(net(x, y[:, :1])[:, 2], net(x[:, 2:3], y[:, :1])[:, 0])  # shared y


def test_slope_is_the_derivative():
    """The slope carried forward equals what autograd carries back."""
    net = ManyEnergies(3, torch.Generator().manual_seed(0)).double()
    x, y = torch.randn(3, 4).double(), torch.randn(3, 4, 5).double().requires_grad_()
    f, slope = net.value_and_slope(x, y)
    torch.testing.assert_close(f, net(x, y))
    torch.testing.assert_close(slope, torch.autograd.grad(net(x, y).sum(), y)[0])


def test_dsm_by_the_slope_is_dsm_by_autograd():
    """Values and gradients in the weights, in float64."""
    net = ManyEnergies(2, torch.Generator().manual_seed(0)).double()
    x, y = torch.randn(2, 4).double(), torch.randn(2, 4).double()
    noisy = y[..., None, None] + 0.2 * torch.randn(2, 4, 8, 1).double()
    found = []
    for energy in (methods._InY(net, x), lambda v: net(x, v.squeeze(-1))):
        loss = losses.denoising_score_matching(energy, y[..., None], noisy, 0.2)
        used = [p for name, p in net.named_parameters() if name != "last.bias"]  # which no gradient in y depends on
        found.append([loss, *torch.autograd.grad(loss, used)])
    torch.testing.assert_close(*found)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("method", ["nce+", "dsm", "ml-mcmc-1"])
def test_compiled_training_is_the_same_to_rounding(method):
    """Thirty steps in either way: the weights differ by less than a tenth of a learning rate. The last bias is left
    out: no loss depends on it, so that Adam makes steps of its rounding errors."""
    settings = StudySettings(epochs=15, batch=16, examples=40)
    plain, compiled = (
        train(StudyCell(method, 8), [(1, 0), (2, 0)], settings, "cpu", compiled=c) for c in (False, True)
    )
    others = dict(compiled.named_parameters())
    for name, a in plain.named_parameters():
        if name != "last.bias":
            torch.testing.assert_close(a, others[name], rtol=0, atol=1e-4)


def test_gaussian_baseline_is_a_gaussian():
    """exp of it over y integrates to sqrt(2 pi), whatever mean and variance the network predicts."""
    net = ManyGaussians(2, torch.Generator().manual_seed(0))
    y = torch.linspace(-30, 30, 6001)
    f = net(torch.randn(2, 3), y.expand(2, 1, -1)).detach()
    torch.testing.assert_close(log_z_grid(f, y), torch.full((2, 3), 0.5 * math.log(2 * math.pi)))


def test_weights_start_as_torch_linear_does():
    """Uniform on +-1 / sqrt(inputs), weights and biases: 20 inputs, bound 0.2236, deviation bound /
    sqrt(3)."""
    layer = ManyEnergies(200, torch.Generator().manual_seed(0)).join
    bound = 1 / math.sqrt(20)
    for parameter in (layer.weight, layer.bias):
        assert 0.99 * bound < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


class Truth(nn.Module):
    """A model that knows the density, off by a shift in y and a constant."""

    def __init__(self, dataset: int, shift: float = 0.0) -> None:
        super().__init__()
        self.dataset = dataset
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x, y):
        return log_density(self.dataset, x[..., None], y - self.shift) + 7.0


def test_divergence_of_the_truth_is_zero_and_of_a_shift_known():
    """Data set 2 is Gaussian: a shift by t costs t^2 / (2 s(x)^2), averaged over x; t = 0.02, s = 0.15
    sigmoid(x). The grid of 1024 has cells of 0.006, the narrowest s is 0.007, so the sums are still close to
    the integrals."""
    pairs = [(2, 0)]
    assert divergences(Truth(2), pairs, 64).item() == pytest.approx(0, abs=1e-5)
    x = torch.linspace(-3, 3, 1024)
    expected = (0.02**2 / (2 * (0.15 * torch.sigmoid(x)) ** 2)).mean().item()
    assert divergences(Truth(2, 0.02), pairs, 1024).item() == pytest.approx(expected, rel=0.02)


def test_divergence_does_not_depend_on_chunks_or_company():
    net = ManyEnergies(4, torch.Generator().manual_seed(0))
    pairs = [(1, 0), (2, 0), (1, 1), (2, 1)]
    together = divergences(net, pairs, 48)
    torch.testing.assert_close(divergences(net, pairs, 48, chunk=1000), together)
    single = ManyEnergies(1, torch.Generator().manual_seed(0))
    single.load_state_dict({name: value[2:3] for name, value in net.state_dict().items()})
    torch.testing.assert_close(divergences(single, [(1, 1)], 48), together[2:3])


def test_an_epoch_sees_every_example_once():
    """40 examples in batches of 16: 16, 16 and 8, each example once, as in the authors' code."""
    batches = list(study1d._batches(torch.zeros(2, 40), 16, torch.Generator().manual_seed(0)))
    assert [each.shape[1] for each in batches] == [16, 16, 8]
    assert torch.equal(torch.cat(batches, dim=1).sort(dim=1).values, torch.arange(40).expand(2, 40))


def test_dsm_has_the_width_of_its_data_set_and_noise_for_each_example():
    """A flat energy has the loss mean(noise^2) / sigma^4, near 1 / sigma^2: 25 with 0.2, 178 with 0.075."""
    net = ManyEnergies(2, torch.Generator().manual_seed(0))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    loss = methods.method_of("dsm", [1, 2])(net, torch.zeros(2, 3), torch.zeros(2, 3), 4000, torch.Generator())
    assert loss[0].mean().item() == pytest.approx(1 / 0.2**2, rel=0.05)
    assert loss[1].mean().item() == pytest.approx(1 / 0.075**2, rel=0.05)
    assert len(set(loss.flatten().tolist())) == 6


def test_runs_do_not_touch_each_other():
    """The loss of run 0 has no gradient in the weights of run 1."""
    net = ManyEnergies(2, torch.Generator().manual_seed(0))
    x, y = torch.randn(2, 8), torch.randn(2, 8)
    METHODS["nce+"](net, x, y, 16, torch.Generator().manual_seed(1))[0].mean().backward()
    for parameter in net.parameters():
        assert parameter.grad[1].abs().max() == 0
    assert net.join.weight.grad[0].abs().max() > 0


@pytest.mark.parametrize("method", [name for name in METHODS if name not in methods.LONG])
@pytest.mark.parametrize("samples", [1, 8])
def test_every_method_trains_to_something_finite(method, samples):
    net = train(StudyCell(method, samples), [(1, 0), (2, 0)], TINY, "cpu")
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    again = train(StudyCell(method, samples), [(1, 0), (2, 0)], TINY, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))


def test_training_brings_the_divergence_down():
    """Twelve short epochs of NCE+ on 1,000 examples take D_KL to less than half of where it began (about
    2.1)."""
    settings = StudySettings(epochs=12, examples=1000, learning_rate=5e-3)
    before = divergences(ManyEnergies(2, torch.Generator().manual_seed(0)), [(1, 0), (1, 1)], 128)
    after = divergences(train(StudyCell("nce+", 32), [(1, 0), (1, 1)], settings, "cpu"), [(1, 0), (1, 1)], 128)
    assert (after < before / 2).all()


def test_study_resumes_and_reports(tmp_path, monkeypatch):
    """A second call trains nothing; asking for more runs trains only those; other settings are refused."""
    options = {"methods": ["nce+", "gaussian"], "samples": (2, 4), "device": "cpu", "settings": TINY}
    lines = []
    table = study_1d(tmp_path, runs=1, log=lines.append, **options)
    assert len(lines) == 3 and "| nce+ | 4 |" in table and "| gaussian | - |" in table
    for name in ("table.md", "figure2.png", "densities.png"):
        assert (tmp_path / name).stat().st_size > 0
    trained, original = [], study1d.train

    def noted(cell, pairs, *rest):
        trained.extend(pairs)
        return original(cell, pairs, *rest)

    monkeypatch.setattr(study1d, "train", noted)
    assert study_1d(tmp_path, runs=1, log=lines.append, **options) == table and trained == []
    study_1d(tmp_path, runs=2, log=lines.append, **options)
    assert sorted(set(trained)) == [(1, 1), (2, 1)]
    with pytest.raises(ConfigError, match="other settings"):
        study_1d(tmp_path, settings=StudySettings(epochs=2))


def test_a_study_of_methods_without_a_curve_in_figure_2_has_its_report(tmp_path):
    table = study_1d(tmp_path, ["sm"], 1, (2,), "cpu", TINY, log=lambda line: None)
    assert "| sm | - |" in table
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("figure2.png", "densities.png"))


def test_bad_requests_and_broken_records(tmp_path):
    with pytest.raises(ConfigError, match="unknown method 'nce-'"):
        study_1d(tmp_path, methods=["nce-"], settings=TINY)
    with pytest.raises(ConfigError, match="samples"):
        study_1d(tmp_path, samples=(0,), settings=TINY)
    with pytest.raises(ConfigError, match="--runs must be at least 1, got 0"):
        study_1d(tmp_path, runs=0, settings=TINY)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "half.json").write_text('{"method": "nce"')
    with pytest.raises(ResultError, match="half.json"):
        study_1d(tmp_path, methods=["nce"], settings=TINY)


def test_table_is_the_mean_of_the_best_quarter():
    """20 runs 1, 2, .., 20 hundredths on each data set, and 1 more on the second: 5 best average 0.03 and
    1.03. A run that failed counts as the worst. The paper's numbers stand beside M = 1024 only."""
    runs = [{"dataset": d, "run": r, "kl": (r + 1) / 100 + (d == 2)} for d in (1, 2) for r in range(19)]
    failed = [{"dataset": d, "run": 19, "kl": None} for d in (1, 2)]
    record = {"method": "nce+", "samples": 1024, "seconds": 300.0, "runs": runs + failed, "best": {}}
    table = study1d_report.make_table([json.loads(json.dumps(record))], StudySettings())
    low, high = study1d_report.best_quarter_interval([study1d_report.divergences_of([record], d) for d in (1, 2)])
    assert 0.515 <= low < 0.530 < high < 0.57  # at best five times run 1; every draw moves the mean by a few hundredths
    assert f"| nce+ | 1024 | 0.066 | 0.530 | {low:.3f} to {high:.3f} | 0.030 | 1.030 |" in table
    assert "| 20 + 20 | 0.100 |" in table
    other = study1d_report.make_table([{**record, "samples": 4}], StudySettings())
    assert "| nce+ | 4 |  | 0.530 |" in other
    assert study1d_report.best_quarter([]) == math.inf


def test_interrupted_training_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Killed in the third of four epochs (3 batches each), then started again: the same weights bit by bit."""
    settings, pairs = StudySettings(epochs=4, batch=16, examples=40), [(1, 0), (2, 0)]
    whole = train(StudyCell("nce+", 4), pairs, settings, "cpu")
    monkeypatch.setattr(study1d, "SAVE_EVERY_S", 0.0)
    calls, original = [], METHODS["nce+"]

    def killed_at_the_seventh_batch(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setitem(METHODS, "nce+", killed_at_the_seventh_batch)
    with pytest.raises(KeyboardInterrupt):
        train(StudyCell("nce+", 4), pairs, settings, "cpu", tmp_path / "state.pt")
    resumed = train(StudyCell("nce+", 4), pairs, settings, "cpu", tmp_path / "state.pt")
    assert len(calls) == 7 + 6  # two epochs were kept, two done again
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))
    train(StudyCell("nce+", 4), [(1, 5)], settings, "cpu", tmp_path / "state.pt")
    assert len(calls) == 13 + 12  # the state of other runs is not used
