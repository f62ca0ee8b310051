"""The model against `transformers`, and its own promises: documents apart, the cache invisible."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from corpusmill.pipeline.errors import InputError
from corpusmill.train.architecture import Architecture
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.model import Llama, initialise
from corpusmill.train.norm import RMSNorm
from corpusmill.train.rope import rotary_table, rotate
from corpusmill.train.visibility import document_positions


def random_model(seed: int = 0, **changes: object) -> Llama:
    shape = {"vocab_size": 97, "layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 96, "context": 64}
    model = Llama(Architecture(**{**shape, **changes}))
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2 + (p.dim() == 1)
    return model


def random_ids(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(97, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_transformers_from_our_folder_and_ours_from_theirs(tmp_path: Path, tied: bool, qk_norm: bool) -> None:
    save_model(random_model(tied=tied, qk_norm=qk_norm, norm_eps=1e-6), tmp_path / "ours")
    ids = random_ids((2, 50))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float64)
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM")
    with torch.no_grad():
        expected = theirs(ids).logits
        ours = load_model(tmp_path / "ours", dtype=torch.float64)(ids)
        theirs.save_pretrained(tmp_path / "theirs")
        again = load_model(tmp_path / "theirs", dtype=torch.float64)(ids)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-10)


def test_loads_a_folder_that_transformers_made_from_its_own_configuration(tmp_path: Path) -> None:
    torch.manual_seed(3)
    rope = {"rope_type": "default", "rope_theta": 500.0}
    config = LlamaConfig(vocab_size=61, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
                         num_key_value_heads=3, max_position_embeddings=32, rope_parameters=rope)  # fmt: skip
    theirs = LlamaForCausalLM(config).double()
    theirs.save_pretrained(tmp_path)
    ids = random_ids((1, 32)) % 61
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path, dtype=torch.float64)(ids), theirs(ids).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_equals_transformers(dtype: torch.dtype) -> None:
    ours, theirs = RMSNorm(32, 1e-5), LlamaRMSNorm(32, 1e-5)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(1))
    ours.weight.data, theirs.weight.data = weight.to(dtype), weight.to(dtype)
    x = (torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(2)) * 30).to(dtype)
    assert torch.equal(ours(x), theirs(x))


def test_rotation_equals_transformers() -> None:
    x = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1))
    arch = random_model().arch
    cos, sin = (table[5:45] for table in rotary_table(arch, x.device, x.dtype))
    wide = LlamaRotaryEmbedding(LlamaConfig(head_dim=16))(x, torch.arange(5, 45).expand(2, -1))
    expected, _ = apply_rotary_pos_emb(x, x, *wide)
    torch.testing.assert_close(rotate(x, cos, sin), expected, rtol=0, atol=1e-6)


def test_document_mask_equals_separate_documents() -> None:
    model = random_model().double()
    lengths = [5, 1, 17, 9]
    ids = random_ids((1, sum(lengths)))
    segments = torch.repeat_interleave(torch.tensor([3, 4, 9, 10]), torch.tensor(lengths))[None]
    packed = model(ids, segments)
    alone = torch.cat([model(part) for part in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-10)
    assert document_positions(segments)[0, :8].tolist() == [0, 1, 2, 3, 4, 0, 0, 1]


def test_cache_in_any_pieces_equals_no_cache() -> None:
    model = random_model().double()
    ids = random_ids((2, 40))
    for pieces in ([40], [1] * 40, [7, 1, 1, 20, 11]):
        cache = model.new_cache(40)
        with torch.no_grad():
            cached = torch.cat([model(part, cache=cache) for part in ids.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cached, model(ids), rtol=0, atol=1e-10)


def test_padding_on_the_right_changes_nothing() -> None:
    model = random_model().double()
    ids = random_ids((1, 20))
    padded = torch.cat([ids, torch.ones(1, 12, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(model(padded)[:, :20], model(ids), rtol=0, atol=1e-10)


def test_beyond_the_context_is_one_sentence() -> None:
    with pytest.raises(InputError, match="65 tokens is longer than the model's context of 64"):
        random_model()(random_ids((1, 65)))


def test_initialisation_is_that_of_its_seed_and_begins_at_the_uniform_loss() -> None:
    first, second, other = (Llama(random_model().arch) for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert torch.equal(first(random_ids((1, 9))), torch.zeros(1, 9, 97))


def test_parts_in_a_row_compute_and_begin_as_the_whole() -> None:
    whole = random_model().double()
    first, last = random_model().double(), random_model().double()
    first.model.norm = first.lm_head = last.model.embed_tokens = None
    for part, gone in ((first, "2"), (last, "0"), (last, "1")):
        del part.model.layers[gone]
    ids = random_ids((2, 30))
    segments = (torch.arange(30) // 11).expand(2, -1)
    assert torch.equal(last(first(ids, segments), segments), whole(ids, segments))
    caches = first.new_cache(), last.new_cache()
    pieces = [last(first(piece, cache=caches[0]), cache=caches[1]) for piece in ids.split(6, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole(ids), rtol=0, atol=1e-10)
    for part in (whole, first, last):
        initialise(part, 5)
    assert set(first.state_dict()) | set(last.state_dict()) == set(whole.state_dict())
    assert all(torch.equal(values, whole.state_dict()[name]) for part in (first, last) for name, values in part.state_dict().items())
