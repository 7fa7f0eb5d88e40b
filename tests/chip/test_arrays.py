"""Whole arrays against Kirchhoff's laws solved by SciPy: placement, packing, copies, read noise on wires."""

import numpy as np
import pytest

from rramsim.cell import DisturbConfig, ReadNoiseConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from tests.chip.conftest import exact_cells, exact_chip, exact_converters
from tests.chip.nodal import Array

WIRES = {"r_word": 4.0, "r_bit": 6.0, "r_driver": 50.0, "r_sense": 20.0}
RTOL = 2e-6  # conductances and matrices are float32
LAYERS = {"a": (9, 3), "b": (20, 7), "c": (30, 2)}


def placed_chip(placement, unused="reset", kind="differential", copies=1, fill=False, **changes):
    mapping = MappingConfig(
        kind=kind,
        tile_rows=24,
        tile_cols=16,
        placement=placement,
        unused=unused,
        copies=copies,
        fill=fill,
    )
    cells = exact_cells(n_levels=16, law="lognormal", sigma=0.2)
    config = exact_chip(mapping, cells=cells, wires=WiresConfig(**WIRES), **changes)
    chip = SimulatedChip(config, LAYERS, seed=3)
    rng = np.random.default_rng(0)
    for name, info in chip.layers.items():
        chip.write(name, rng.integers(0, 16, (info.n_rows, info.n_cols, info.cells_per_weight)))
        chip.configure(name, input_range=(-0.2, 0.2), output_range=1e-4)
    return chip


def whole_arrays(chip):
    """Conductances of every physical array and, per array, the lines that hold weights."""
    result, used = [], []
    for number, shape in enumerate(chip.map.shapes):
        g, rows, lines = np.full(shape, np.nan), set(), set()
        for name, places in chip.map.places.items():
            array = chip._layers[name].array
            for place, (own_rows, own_lines), tile in zip(places, array.tiles(), array.on_tiles, strict=True):
                if place.tile != number:
                    continue
                if tile.around is not None:
                    g = np.where(np.isnan(g), tile.around.conductance, g)
                inner = (
                    slice(place.row, place.row + place.n_rows),
                    slice(place.line, place.line + place.n_lines),
                )
                g[inner] = array.cells.conductance[own_rows, own_lines]
                rows |= set(range(inner[0].start, inner[0].stop))
                lines |= set(range(inner[1].start, inner[1].stop))
        result.append(g)
        used.append((rows, lines))
    return result, used


def nodal_outputs(chip, name, codes):
    """Digital sums of the layer's channels [A] from the nodal solution of every array it lies on."""
    arrays, used = whole_arrays(chip)
    layer = chip._layers[name]
    layout = layer.array.layout
    floating = chip.config.mapping.unused == "floating"
    drive = codes * layer.drive.v_lsb
    lines = np.zeros((len(codes), layout.n_lines))
    for place, (rows, own_lines) in zip(chip.map.places[name], layer.array.tiles(), strict=True):
        g, (used_rows, used_lines) = arrays[place.tile], used[place.tile]
        open_lines = {}
        if floating:
            open_lines = {
                "float_word": sorted(set(range(g.shape[0])) - used_rows),
                "float_bit": sorted(set(range(g.shape[1])) - used_lines),
            }
        v = np.zeros((len(codes), g.shape[0]))
        part = np.zeros((len(codes), layout.n_word_lines))
        for copy in layout.row_of:
            part[:, copy] = drive
        v[:, place.row : place.row + place.n_rows] = part[:, rows]
        out = Array(g, **WIRES, **open_lines).outputs(v)
        lines[:, own_lines] += out[:, place.line : place.line + place.n_lines]
    minus = layout.line_of[:, 1] if layout.line_of.shape[1] == 2 else layout.reference_of
    return lines[:, layout.line_of[:, 0]] - lines[:, minus]


@pytest.mark.parametrize("kind", ["differential", "reference"])
@pytest.mark.parametrize(
    "placement, unused", [("full", "reset"), ("packed", "reset"), ("packed", "floating")]
)
def test_layers_on_whole_arrays_equal_the_nodal_solution(placement, unused, kind):
    chip = placed_chip(placement, unused, kind)
    assert (len(chip.map.shapes) < 4) == (placement == "packed")
    rng = np.random.default_rng(1)
    for name, info in chip.layers.items():
        codes = rng.integers(-8388607, 8388608, (5, info.n_rows))
        want = nodal_outputs(chip, name, codes)
        got = chip.mvm(name, codes).codes / 8388607 * 1e-4
        assert np.abs(got - want).max() < 5 * RTOL * np.abs(want).max()
        cropped = placed_chip("cropped", kind=kind).mvm(name, codes).codes / 8388607 * 1e-4
        assert np.abs(cropped - want).max() > 100 * RTOL * np.abs(want).max()  # the array around is felt


def test_copies_add_currents_of_their_own_cells():
    chip = placed_chip("full", copies=2)
    single = placed_chip("full")
    for name, info in chip.layers.items():
        assert info.g_unit == 2 * single.layers[name].g_unit
        codes = np.random.default_rng(1).integers(-8388607, 8388608, (5, info.n_rows))
        want = nodal_outputs(chip, name, codes)
        got = chip.mvm(name, codes).codes / 8388607 * 1e-4
        assert np.abs(got - want).max() < 5 * RTOL * np.abs(want).max()
    assert chip.ledger.total.cell_writes == 2 * single.ledger.total.cell_writes
    assert chip.ledger.writes_per_cell == pytest.approx(1.0)


def test_fill_repeats_rows_as_often_as_the_array_allows():
    filled = placed_chip("full", fill=True)
    for name, info in filled.layers.items():
        n_copies = max(1, 24 // info.n_rows)
        assert info.g_unit == n_copies * placed_chip("full").layers[name].g_unit
        by_hand = placed_chip("full", copies=n_copies)
        codes = np.random.default_rng(1).integers(-8388607, 8388608, (5, info.n_rows))
        if name == next(iter(filled.layers)):  # cells are numbered by their place, the first layer's alike
            np.testing.assert_array_equal(filled.mvm(name, codes).codes, by_hand.mvm(name, codes).codes)
        want = nodal_outputs(filled, name, codes)
        got = filled.mvm(name, codes).codes / 8388607 * 1e-4
        assert np.abs(got - want).max() < 5 * RTOL * np.abs(want).max()
    with pytest.raises(InputError, match="fill = true needs placement"):
        placed_chip("packed", fill=True)


def test_rewriting_one_layer_of_a_shared_array_is_felt_by_the_others():
    chip = placed_chip("packed")
    codes = np.random.default_rng(1).integers(-8388607, 8388608, (5, 9))
    before = chip.mvm("a", codes).codes
    chip.write("c", np.full((30, 2, 2), 15))
    after = chip.mvm("a", codes).codes
    assert (before != after).any()
    want = nodal_outputs(chip, "a", codes)
    assert np.abs(after / 8388607 * 1e-4 - want).max() < 5 * RTOL * np.abs(want).max()


def test_without_wires_a_place_changes_no_bit():
    outputs = []
    for placement in ("cropped", "full", "packed"):
        mapping = MappingConfig(tile_rows=24, tile_cols=16, placement=placement)
        cells = exact_cells(n_levels=16, law="lognormal", sigma=0.2)
        chip = SimulatedChip(ChipConfig(mapping=mapping, cells=cells), LAYERS, seed=3)
        chip.write("b", np.random.default_rng(0).integers(0, 16, (20, 7, 2)))
        chip.configure("b", output_range=1e-4)
        outputs.append(chip.mvm("b", np.random.default_rng(1).integers(0, 256, (50, 20))).codes)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_forks_and_states_of_shared_arrays_go_on_bit_for_bit():
    chip = placed_chip("packed")
    codes = np.random.default_rng(1).integers(-8388607, 8388608, (5, 9))
    want = chip.mvm("a", codes).codes
    twin = chip.fork()
    np.testing.assert_array_equal(twin.mvm("a", codes).codes, want)
    twin.write("c", np.full((30, 2, 2), 15))
    assert (twin.mvm("a", codes).codes != want).any()
    np.testing.assert_array_equal(chip.mvm("a", codes).codes, want)  # the fork's writes stay its own
    other = SimulatedChip(chip.config, LAYERS, seed=3)
    other.load_state_dict(chip.state_dict())
    np.testing.assert_array_equal(other.mvm("a", codes).codes, want)


def test_packing_fills_arrays_without_overlap():
    rng = np.random.default_rng(0)
    layers = {f"l{k}": (int(rng.integers(1, 60)), int(rng.integers(1, 20))) for k in range(40)}
    chip = SimulatedChip(
        ChipConfig(mapping=MappingConfig(tile_rows=32, tile_cols=24, placement="packed")), layers
    )
    cells = 0
    for number, shape in enumerate(chip.map.shapes):
        taken = np.zeros(shape, dtype=int)
        for places in chip.map.places.values():
            for place in places:
                if place.tile == number:
                    assert 0 <= place.row <= shape[0] - place.n_rows
                    assert 0 <= place.line <= shape[1] - place.n_lines
                    taken[place.row : place.row + place.n_rows, place.line : place.line + place.n_lines] += 1
        assert taken.max() == 1
        cells += taken.sum()
    assert cells == sum(r * 2 * c for r, c in layers.values())
    assert chip.map.utilisation == cells / (32 * 24 * len(chip.map.shapes)) > 0.6
    assert sum((grid >= 0).sum() for grid in chip.map.occupancy()) == cells


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"placement": "packed", "disturb": DisturbConfig(law="power")}, "packed"),
        ({"placement": "cropped", "unused": "floating"}, "floating"),
        ({"placement": "full", "copies": 25}, "copies"),
    ],
)
def test_placements_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        placed_chip(converters=ConverterConfig(), **changes)


def noisy_array(ohm, high, kind="differential", copies=1, placement="cropped"):
    """A full 128 x 128 array with read noise of 5 % and 24-bit converters."""
    mapping = MappingConfig(kind=kind, copies=copies, placement=placement)
    cells = exact_cells(
        n_levels=16, law="lognormal", sigma=0.1, read_noise=ReadNoiseConfig(sigma_relative=0.05)
    )
    config = exact_chip(
        mapping,
        cells=cells,
        converters=exact_converters(dac_bits=8),
        wires=WiresConfig(r_word=ohm, r_bit=ohm),
    )
    n_rows, n_cols = 128 // copies, 64 if kind == "differential" else 127
    chip = SimulatedChip(config, {"layer": (n_rows, n_cols)}, seed=1)
    rng = np.random.default_rng(0)
    levels = rng.integers(10, 16, (n_rows, n_cols, 2))
    if not high:
        one = np.minimum(*rng.integers(0, 16, (2, n_rows, n_cols)))
        plus = rng.random((n_rows, n_cols)) < 0.5
        levels = np.stack([np.where(plus, one, 0), np.where(plus, 0, one)], axis=2)
    chip.write("layer", levels[:, :, : chip.layers["layer"].cells_per_weight])
    chip.configure("layer", input_range=(-0.2, 0.2), output_range=5e-3)
    return chip


def kinds_of_input(n_rows):
    rng = np.random.default_rng(5)
    plain = np.rint(127 * rng.random(n_rows)).astype(int)
    half = np.where(rng.random(n_rows) < 0.5, plain, 0)
    return {
        "plain": plain,
        "dense": np.full(n_rows, 127),
        "half zero": half,
        "signed": np.rint(rng.uniform(-127, 127, n_rows)).astype(int),
        "upper rows": np.where(np.arange(n_rows) < n_rows // 2, 127, 0),
    }


@pytest.mark.parametrize("high", [False, True])
@pytest.mark.parametrize("ohm", [1.0, 2.5, 5.0])
def test_read_noise_on_wires_has_the_variance_of_every_cell(ohm, high):
    """First order in every cell, exact otherwise: its solved voltage, and what it sends to both outputs.

    The chip's variance is measured over 6000 reads: standard error 1.8 % a column, 0.23 % for the mean
    of 64. Mean over columns within 5 %, every column within 12 %; false alarms below 1e-6.
    """
    chip = noisy_array(ohm, high)
    cells = chip._layers["layer"].array.cells
    g, sigma = cells.conductance.astype(float), cells.read_sigma().astype(float)
    array = Array(g, ohm, ohm)
    transfer = array.to_outputs(range(128))
    for name, codes in kinds_of_input(128).items():
        v = array.cell_voltages(codes[None] / 127 * 0.2)[0]
        want = [np.sum((sigma * v * (transfer[k] - transfer[k + 1])) ** 2) for k in range(0, 128, 2)]
        got = chip.mvm("layer", np.tile(codes, (6000, 1))).codes / 8388607 * 5e-3
        ratio = got.var(axis=0) / want
        assert abs(ratio.mean() - 1) < 0.05, name
        assert np.abs(ratio - 1).max() < 0.12 + 0.06 * (ohm == 5.0), name


@pytest.mark.parametrize("kind, copies", [("reference", 1), ("differential", 2)])
def test_read_noise_on_wires_of_reference_lines_and_copies(kind, copies):
    chip = noisy_array(2.5, True, kind, copies)
    array = chip._layers["layer"].array
    g, sigma = array.cells.conductance.astype(float), array.cells.read_sigma().astype(float)
    solved = Array(g, 2.5, 2.5)
    layout = array.layout
    plus, minus = layout.line_of[:, 0], layout.reference_of if kind == "reference" else layout.line_of[:, 1]
    transfer = solved.to_outputs(range(128))
    codes = kinds_of_input(layout.n_rows)["plain"]
    v = solved.cell_voltages(np.tile(codes, copies)[None] / 127 * 0.2)[0]
    want = [np.sum((sigma * v * (transfer[p] - transfer[m])) ** 2) for p, m in zip(plus, minus, strict=True)]
    got = chip.mvm("layer", np.tile(codes, (6000, 1))).codes / 8388607 * 5e-3
    ratio = got.var(axis=0) / want
    assert abs(ratio.mean() - 1) < 0.05
    assert np.abs(ratio - 1).max() < 0.15


def test_read_noise_on_wires_equals_redrawing_and_solving():
    """Variance over 400 redrawn arrays of 24 x 16 cells: standard error 2.5 % of the mean of 8 columns."""
    mapping = MappingConfig(tile_rows=24, tile_cols=16)
    cells = exact_cells(n_levels=16, read_noise=ReadNoiseConfig(sigma_relative=0.05))
    config = exact_chip(
        mapping, cells=cells, converters=exact_converters(dac_bits=8), wires=WiresConfig(r_word=30, r_bit=30)
    )
    chip = SimulatedChip(config, {"layer": (24, 8)}, seed=1)
    rng = np.random.default_rng(0)
    chip.write("layer", rng.integers(8, 16, (24, 8, 2)))
    chip.configure("layer", input_range=(-0.2, 0.2), output_range=5e-3)
    cells = chip._layers["layer"].array.cells
    g, sigma = cells.conductance.astype(float), cells.read_sigma().astype(float)
    codes = np.full(24, 127)
    drawn = [
        Array(g + sigma * rng.standard_normal(g.shape), 30, 30).outputs(codes[None] / 127 * 0.2)[0]
        for _ in range(400)
    ]
    drawn = np.array(drawn)[:, 0::2] - np.array(drawn)[:, 1::2]
    got = chip.mvm("layer", np.tile(codes, (6000, 1))).codes / 8388607 * 5e-3
    assert abs(np.mean(got.var(axis=0) / drawn.var(axis=0)) - 1) < 0.12  # five standard errors


@pytest.mark.parametrize("unused", ["reset", "floating"])
def test_reads_stress_the_cells_around_a_layer(unused):
    """One of four arrays is full; on nearly ideal wires a driven line stresses all its grounded cells."""
    read = {"v_read": 0.5, "t_read": 1e-3}
    mapping = MappingConfig(tile_rows=8, tile_cols=8, placement="full", unused=unused)
    results = []
    for mode in ("fast", "exact"):
        config = exact_chip(
            mapping,
            cells=exact_cells(n_levels=16),
            converters=exact_converters(dac_bits=8, **read),
            disturb=DisturbConfig(law="power", mode=mode, state_step=16, **read),
            wires=WiresConfig(r_word=1e-3, r_bit=1e-3),
        )
        chip = SimulatedChip(config, {"layer": (12, 6)})
        chip.write("layer", np.full((12, 6, 2), 9))
        chip.configure("layer", input_range=(0, 0.5), output_range=1e-3)
        codes = np.full((32, 12), 200)
        codes[:, 0] = 0
        chip.mvm("layer", codes)
        array = chip._layers["layer"].array
        tile = array.on_tiles[3]  # rows 8-11 and lines 8-11 of the layer, in the lower left corner
        assert [t.around is None for t in array.on_tiles] == [True, False, False, False]
        stress = tile.around.stress
        assert np.abs(stress[:4]).max() < 1e-6 * np.abs(stress[4:]).max()
        assert (stress[4:, :4] != 0).all()
        if unused == "reset":
            np.testing.assert_allclose(stress[4:], stress[4, 0], rtol=2e-3)
        else:  # an open bit line follows the word lines, all at one voltage
            assert np.abs(stress[4:, 4:]).max() < 1e-3 * np.abs(stress[4:, :4]).min()
        results.append(stress.copy())
        assert np.abs(array.cells.stress[0]).max() < 1e-6 * np.abs(array.cells.stress[1]).max()
    scale = np.abs(results[1]).max()
    np.testing.assert_allclose(results[0], results[1], atol=5e-3 * scale)


def test_the_map_is_drawn_and_told(tmp_path):
    from rramsim.chip.plot import map_figure

    chip = placed_chip("packed")
    figure = map_figure(chip.map, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 5000
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [f"{k}: {100 * (grid >= 0).mean():.0f} %" for k, grid in enumerate(chip.map.occupancy())]
    rows = {row["layer"]: row for row in chip.map.table()}
    assert rows["b"]["cells"] == 20 * 14
    assert rows["c"]["tiles"] == [0]


def test_rramsim_info_shows_the_arrays_of_an_experiment(tmp_path):
    from click.testing import CliRunner

    from finetune.study.cli import main

    path = tmp_path / "one.toml"
    path.write_text(
        '[experiment]\ndataset = "digits"\nnetwork = "cnn_digits"\nn_calibration = 64\n'
        '[mapping]\nplacement = "packed"\n'
    )
    result = CliRunner().invoke(main, ["info", str(path), "--plot", str(tmp_path / "map.png")])
    assert result.exit_code == 0, result.output
    assert "(packed)" in result.output
    assert (tmp_path / "map.png").exists()
