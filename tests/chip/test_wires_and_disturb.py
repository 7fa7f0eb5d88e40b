"""Wires and read disturbance inside a chip, against their definitions."""

import numpy as np
import pytest

from rramsim.blackbox.windows import border_classes
from rramsim.cell import DisturbConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_cells, exact_chip, exact_converters

R_WORD, R_BIT = 3.0, 5.0


def nodal_effective(g):
    """Output currents of unit inputs by dense nodal analysis, straight from the circuit's drawing."""
    m, n = g.shape
    word = np.arange(m * n).reshape(m, n)
    bit = word + m * n
    y = np.zeros((2 * m * n, 2 * m * n))
    source = np.zeros((2 * m * n, m))

    def resistor(a, b, conductance):
        y[a, a] += conductance
        y[b, b] += conductance
        y[a, b] -= conductance
        y[b, a] -= conductance

    for i in range(m):
        y[word[i, 0], word[i, 0]] += 1 / R_WORD
        source[word[i, 0], i] = 1 / R_WORD
        for j in range(n):
            resistor(word[i, j], bit[i, j], g[i, j])
            if j:
                resistor(word[i, j - 1], word[i, j], 1 / R_WORD)
            if i:
                resistor(bit[i - 1, j], bit[i, j], 1 / R_BIT)
    for j in range(n):
        y[bit[m - 1, j], bit[m - 1, j]] += 1 / R_BIT
    return (np.linalg.solve(y, source)[bit[m - 1]] / R_BIT).T  # (m, n)


@pytest.mark.parametrize("kind", ["differential", "reference"])
def test_a_network_on_wired_tiles_equals_the_nodal_solution_of_every_tile(kind, images):
    network = conv_network(groups=2)
    wires = WiresConfig(r_word=R_WORD, r_bit=R_BIT)
    mapping = MappingConfig(kind=kind, tile_rows=8, tile_cols=6, placement="cropped")
    config = exact_chip(mapping, cells=exact_cells(n_levels=16, law="lognormal", sigma=0.05), wires=wires)
    chip = SimulatedChip(config, layer_shapes(network))
    deployment = Deployment(network, chip)
    deployment.map(images, margin=2.0)
    values = {"input": images}
    deployment.evaluate(values, network.output, keep=set(network.mapped) | {"relu1", "flat"})
    for name in network.mapped:
        node = network.node(name)
        for group, layer in enumerate(deployment.layers_of(name)):
            array = chip._layers[layer].array
            g, layout = np.asarray(array.cells.conductance, float), array.layout
            effective = np.zeros_like(g)
            for rows, lines in array.tiles():
                effective[rows, lines] = nodal_effective(g[rows, lines])
            assert np.abs(effective / g - 1).max() > 1e-3  # the wires are felt
            minus = layout.line_of[:, 1] if kind == "differential" else layout.reference_of
            stored = (effective[:, layout.line_of[:, 0]] - effective[:, minus]) / chip.layers[layer].g_unit
            host = deployment.layers[layer]
            codes = deployment.codes(layer, values[node.inputs[0]]).astype(float)
            want = codes * host.x_step @ (stored * host.scale) + host.offset
            if kind == "reference":
                want += codes.sum(axis=1, keepdims=True) * host.x_step * host.common
            out = values[name]
            per_group = out.shape[1] // len(deployment.layers_of(name))
            got = out[:, group * per_group : (group + 1) * per_group]
            got = got.transpose(0, 2, 3, 1).reshape(want.shape) if got.ndim == 4 else got
            assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_only_changed_tiles_are_solved_again():
    wires = WiresConfig(r_word=R_WORD, r_bit=R_BIT)
    config = exact_chip(MappingConfig(tile_rows=8, tile_cols=8), cells=exact_cells(n_levels=16), wires=wires)
    chip = SimulatedChip(config, {"layer": (24, 12)})
    chip.configure("layer", output_range=1e-4)
    codes = np.zeros((1, 24), dtype=int)
    chip.mvm("layer", codes)
    array = chip._layers["layer"].array
    assert array.n_solved == 9
    mask = np.zeros((24, 12, 2), dtype=bool)
    mask[0, 0, 0] = True
    chip.write("layer", np.full((24, 12, 2), 9), mask)
    chip.mvm("layer", codes)
    assert array.n_solved == 10


def disturbed(mode="fast", *, law="power", state_step=64, wires=None, v_read=0.5, **converters):
    settings = {"dac_bits": 8, "adc_bits": 24, "adc_noise": 0.0, "v_read": v_read, "t_read": 1e-3}
    config = exact_chip(
        cells=exact_cells(n_levels=16),
        converters=ConverterConfig(**(settings | converters)),
        disturb=DisturbConfig(law=law, v_read=v_read, t_read=1e-3, state_step=state_step, mode=mode),
        wires=wires,
    )
    network = conv_network()
    chip = SimulatedChip(config, layer_shapes(network))
    deployment = Deployment(network, chip)
    return network, chip, deployment


def conductances(chip):
    return {name: layer.array.cells.conductance.copy() for name, layer in chip._layers.items()}


@pytest.mark.parametrize("converters", [{}, {"input_mode": "bit_serial"}, {"drive": "two_phase"}])
def test_fast_disturbance_equals_exact_without_wires(images, converters):
    results = []
    for mode in ("fast", "exact"):
        _, chip, deployment = disturbed(mode, **converters)
        deployment.map(images)
        before = conductances(chip)
        deployment.run(np.tile(images, (12, 1, 1, 1)))
        results.append(conductances(chip))
        assert any(np.abs(results[-1][k] / before[k] - 1).max() > 1e-2 for k in before)
    for name in results[0]:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=2e-4)


def test_undriven_word_lines_gain_no_stress():
    config = exact_chip(
        converters=exact_converters(dac_bits=8, v_read=0.5, t_read=1.0),
        disturb=DisturbConfig(law="power", v_read=0.5, t_read=1.0, state_step=8),
    )
    chip = SimulatedChip(config, {"layer": (6, 3)})
    chip.write("layer", np.full((6, 3, 2), 2**15 - 1))
    chip.configure("layer", input_range=(0, 0.5), output_range=1e-3)
    before = conductances(chip)["layer"]
    codes = np.zeros((16, 6), dtype=int)
    codes[:, :3] = 255
    chip.mvm("layer", codes)
    after = conductances(chip)["layer"]
    np.testing.assert_array_equal(after[3:], before[3:])
    assert (after[:3] < before[:3]).all()


def test_batches_do_not_change_the_disturbance(images):
    many = np.tile(images, (10, 1, 1, 1))
    results = []
    for parts in (1, 4):
        _, chip, deployment = disturbed()
        deployment.map(images)
        node = deployment.network.node("conv1")
        for part in np.array_split(many, parts):
            deployment.execute(node, part)
        results.append(conductances(chip)["conv1"])
    np.testing.assert_array_equal(*results)


def test_a_fork_and_its_reads_leave_no_disturbance(images):
    _, chip, deployment = disturbed()
    deployment.map(images)
    before = conductances(chip)
    deployment.fork().run(np.tile(images, (20, 1, 1, 1)))
    after = conductances(chip)
    assert all((before[name] == after[name]).all() for name in before)


def test_ageing_equals_sending_the_vectors():
    results = []
    for aged in (False, True):
        _, chip, deployment = disturbed()
        deployment.map(np.ones((2, 2, 7, 7), np.float32))
        codes = np.random.default_rng(0).integers(0, 256, (64, 8))
        chip.configure("fc", input_range=(0, 0.5))
        if aged:
            activity = {name: np.zeros((1, i.n_rows), int) for name, i in chip.layers.items()}
            chip.age(640, activity | {"fc": codes})
        else:
            for _ in range(10):
                chip.mvm("fc", codes)
        results.append(conductances(chip)["fc"])
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_ageing_a_billion_reads_then_writing_restores():
    _, chip, deployment = disturbed()
    images = np.ones((2, 2, 7, 7), np.float32)
    deployment.map(images)
    fresh = conductances(chip)["fc"]
    chip.age(1e9)
    worn = conductances(chip)["fc"]
    assert (worn < 0.9 * fresh)[fresh > 2e-6].any()
    deployment.write("fc", deployment.nearest_levels("fc"), np.ones((8, 5, 2), dtype=bool))
    np.testing.assert_allclose(conductances(chip)["fc"], fresh, rtol=1e-6)


def test_pending_reads_travel_with_the_state(images):
    _, chip, deployment = disturbed(state_step=10_000)
    deployment.map(images)
    deployment.run(images)
    _, other, twin = disturbed(state_step=10_000)
    other.load_state_dict(chip.state_dict())
    twin.load_state_dict(deployment.state_dict())
    many = np.tile(images, (60, 1, 1, 1))
    np.testing.assert_array_equal(deployment.run(many), twin.run(many))
    first, second = conductances(chip), conductances(other)
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize(
    "size, kernel, stride, dilation, pad", [(7, 3, 1, 1, 1), (8, 3, 2, 1, 1), (9, 2, 1, 2, 0)]
)
def test_border_classes_name_the_windows_that_see_a_pixel(size, kernel, stride, dilation, pad):
    n_out = (size + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1
    pixel_class, member = border_classes(size, kernel, stride, dilation, pad, n_out)
    for y in range(size):
        seen = {k for k in range(kernel) for o in range(n_out) if o * stride + k * dilation - pad == y}
        assert seen == set(np.flatnonzero(member[pixel_class[y]]))


def test_exact_disturbance_of_nonlinear_cells_is_refused():
    with pytest.raises(InputError, match="iv_alpha"):
        exact_chip(
            cells=exact_cells(iv_alpha=2.0),
            converters=ConverterConfig(),
            disturb=DisturbConfig(law="power", mode="exact"),
        )


def test_disturb_and_converters_must_name_the_same_read():
    with pytest.raises(InputError, match=r"disturb\.v_read must equal converters\.v_read"):
        exact_chip(disturb=DisturbConfig(law="power", v_read=0.3))


def drifting(tolerance, law, ohm, n_lines=64):
    """One wired tile whose cells drift with every read; codes of a typical input."""
    reads = {"drift": (0.2, 2e-5), "power": (0.5, 1e-3)}[law]
    config = exact_chip(
        MappingConfig(tile_rows=n_lines, tile_cols=n_lines),
        cells=exact_cells(n_levels=16, law="lognormal", sigma=0.3),
        converters=ConverterConfig(dac_bits=8, adc_bits=24, adc_noise=0.0, v_read=reads[0], t_read=reads[1]),
        disturb=DisturbConfig(law=law, v_read=reads[0], t_read=reads[1], state_step=64),
        wires=WiresConfig(r_word=ohm, r_bit=ohm),
        state_tolerance=tolerance,
    )
    chip = SimulatedChip(config, {"layer": (n_lines, n_lines // 2)})
    rng = np.random.default_rng(3)
    levels = np.minimum(rng.integers(0, 16, (n_lines, n_lines // 2, 2)), rng.integers(0, 16))
    chip.write("layer", levels)
    chip.configure("layer", input_range=(0, reads[0]), output_range=1e-3)
    return chip, rng.integers(0, 256, (64, n_lines))


@pytest.mark.parametrize("law", ["drift", "power"])
@pytest.mark.parametrize("ohm", [1.0, 5.0])
def test_kept_solutions_of_drifting_cells_err_by_less_than_a_thousandth(law, ohm):
    """Default tolerance against solving after every change, over the current of all cells at full drive."""
    cached, codes = drifting(ChipConfig().state_tolerance, law, ohm)
    solved, _ = drifting(0.0, law, ohm)
    worst = 0.0
    for _ in range(12):
        got, want = cached.mvm("layer", codes).codes, solved.mvm("layer", codes).codes
        worst = max(worst, np.abs(got - want).max())
    array, exact = cached._layers["layer"].array, solved._layers["layer"].array
    assert exact.n_solved == 12 > array.n_solved  # something was saved
    # a pair's full scale is the current of either line with every word line driven
    line = exact.cells.conductance.sum(axis=0).max() * solved._layers["layer"].drive.v_full
    assert 0 < worst / (2**23 - 1) * 1e-3 < 1e-3 * line
    assert 0 < cached.solution_error <= ChipConfig().state_tolerance


def test_a_disturbed_wired_chip_goes_on_from_its_state_bit_for_bit():
    first, codes = drifting(5e-4, "drift", 5.0)
    for _ in range(5):
        first.mvm("layer", codes[:50])
    second, _ = drifting(5e-4, "drift", 5.0)
    second.load_state_dict(first.state_dict())
    for _ in range(6):
        np.testing.assert_array_equal(first.mvm("layer", codes).codes, second.mvm("layer", codes).codes)
    np.testing.assert_array_equal(first.conductances("layer"), second.conductances("layer"))


def test_calls_split_otherwise_disturb_a_wired_chip_alike():
    results = []
    for parts in (1, 7):
        chip, codes = drifting(5e-4, "drift", 5.0)
        for part in np.array_split(np.tile(codes, (6, 1)), parts):
            chip.mvm("layer", part)
        results.append(chip.conductances("layer"))
    np.testing.assert_array_equal(*results)


def test_the_cells_law_has_one_place():
    with pytest.raises(InputError, match=r"cells\.iv_alpha"):
        exact_chip(wires=WiresConfig(r_word=1.0, alpha=2.0))
