"""Run names and fields convert both ways; a wrong name is answered with the part that is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.engine.run import STRATEGIES, RunSpec

MODELS = st.from_regex(r"[a-z][a-z0-9]{0,8}(_[a-z0-9]{1,5}){0,2}", fullmatch=True)


@st.composite
def specs(draw) -> RunSpec:
    strategy = draw(st.sampled_from(list(STRATEGIES)))
    mp = strategy == "ddp" and draw(st.booleans())
    low = {"serial": 1, "mp": 2}.get(strategy, 1)
    devices = 1 if strategy == "serial" else draw(st.integers(low, 128)) * (2 if mp else 1)
    batch = draw(st.none() | st.integers(1, 4096))
    fields = {
        "strategy": strategy,
        "devices": devices,
        "device": draw(st.sampled_from(["cpu", "gpu"])),
        "mp": mp,
    }
    model = draw(st.none() | MODELS)
    try:
        return RunSpec(**fields, amp=draw(st.booleans()), batch=batch, model=model)
    except ValueError:
        assert model is not None  # only a model named like another part of the grammar is refused
        return RunSpec(**fields, batch=batch)


def test_a_network_whose_name_reads_as_a_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bsa"):
        RunSpec(strategy="serial", devices=1, device="cpu", model="bsa")


@given(specs())
def test_name_round_trips(spec):
    assert RunSpec.parse(spec.name) == spec
    assert RunSpec.parse(spec.name).name == spec.name


@given(st.text(alphabet="abcdefgmpru0123456789_ ", max_size=30))
def test_any_text_parses_to_itself_or_is_refused_with_the_grammar(text):
    try:
        name = RunSpec.parse(text).name
    except MedscaleError as refused:
        name, message = None, str(refused)
    assert name == text if name else "<strategy>[_amp][_mp]_<n><cpu|gpu>" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foo_1cpu", "begins with 'foo'"),
        ("ddp", "number of devices such as 2gpu"),
        ("ddp_gpu2", "not 'gpu2'"),
        ("ddp_02gpu", "not '02gpu'"),
        ("serial_2cpu", "serial run has exactly 1 device"),
        ("mp_1gpu", "at least 2 devices"),
        ("fsdp_mp_2gpu", "_mp goes with ddp only"),
        ("ddp_mp_3gpu", "must be even"),
        ("ddp_mp_amp_2gpu", "not 'amp'"),
        ("ddp_2gpu_bs0", "'bs0' is no batch size"),
        ("ddp_2gpu_bsx", "'bsx' is no batch size"),
        ("ddp_2gpu_Foo", "'Foo' is no model name"),
    ],
)
def test_wrong_names_say_which_part(name, message):
    with pytest.raises(MedscaleError, match=message):
        RunSpec.parse(name)


def test_stages_and_replicas():
    assert (RunSpec.parse("ddp_amp_mp_4gpu").stages, RunSpec.parse("ddp_amp_mp_4gpu").replicas) == (
        2,
        2,
    )
    assert (RunSpec.parse("mp_4gpu").stages, RunSpec.parse("mp_4gpu").replicas) == (4, 1)
    assert (RunSpec.parse("fsdp_3gpu").stages, RunSpec.parse("fsdp_3gpu").replicas) == (1, 3)
