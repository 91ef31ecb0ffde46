"""What every adapter of a vision-language model keeps, against the model's own plain forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrl.config import ConfigError
from mmrl.models.packed import block_mask, pack
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import VlmInputs
from mmrl.models.vlm_loader import load_vlm
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.vlm import TokenReplay, VlmPolicy
from mmrl.types import Prompt
from tests.tiny_vlm import FAMILIES, mixed_prompts, random_model

TEMPLATE = "{question} Say A or B."
GROUP = 3
LENGTHS = torch.tensor([5, 2, 4, 1, 5, 3, 2, 2, 5, 4, 0, 3])
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    """A picture; none; two of other sizes; a longer question."""
    return mixed_prompts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> VlmModel:
    return random_model(request.param)


def policy_of(model: VlmModel, *, checkpointing: bool = False) -> VlmPolicy:
    return VlmPolicy(
        model,
        max_new_tokens=5,
        rows=6,
        temperature=0.7,
        prompt_template=TEMPLATE,
        gradient_checkpointing=checkpointing,
    )


def answers() -> torch.Tensor:
    """Twelve answers of byte tokens; the words behind an answer's length are left-overs."""
    return torch.randint(60, 250, (12, 5), generator=torch.Generator().manual_seed(1))


def plain_log_probs(policy: VlmPolicy, inputs: VlmInputs, ids: torch.Tensor) -> torch.Tensor:
    """Every row whole through the model's own forward: picture, question, answer."""
    rows, tokens = len(ids), torch.cat([inputs.ids.expand(len(ids), -1), ids], dim=1)
    family = policy.module.config.model_type
    given = {}
    for name, values in (inputs.images or {}).items():
        if family in ("smolvlm", "idefics3"):
            given[name] = torch.stack([values] * rows)
        else:
            given[name] = torch.cat([values] * rows)
    if family.startswith("qwen"):
        none = torch.zeros_like(ids)
        given["mm_token_type_ids"] = torch.cat([inputs.types.expand(rows, -1), none], dim=1)
    logits = policy.module(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **given
    ).logits[:, len(inputs.ids) - 1 : -1]
    return (logits / policy.temperature).log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def all_plain(policy: VlmPolicy, inputs: list[VlmInputs], ids: torch.Tensor) -> torch.Tensor:
    groups = zip(inputs, ids.split(GROUP), strict=True)
    return torch.cat([plain_log_probs(policy, one, each) for one, each in groups])


def gradients(policy: VlmPolicy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.module.zero_grad(set_to_none=True)
    loss.backward()
    named = policy.module.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


def live_of(lengths: torch.Tensor) -> torch.Tensor:
    return torch.arange(5) < lengths[:, None]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probs_and_gradients_are_those_of_the_plain_forward(model, prompts, checkpointing):
    """Off a shared prefix, and in one packed row a prompt; vision tower included."""
    policy = policy_of(model, checkpointing=checkpointing)
    inputs, ids, live = model.inputs(prompts, TEMPLATE), answers(), live_of(LENGTHS)
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(2)) * live
    found = policy.answer_log_probs(inputs, ids, GROUP, LENGTHS)
    mine = gradients(policy, (weights * found).sum())
    plain = all_plain(policy, inputs, ids)
    theirs = gradients(policy, (weights * plain).sum())
    torch.testing.assert_close(found[live], plain[live], atol=1e-5, rtol=0)
    assert mine.keys() == theirs.keys()
    inside = [name for name in mine if name.startswith(model.vision)]
    assert max(theirs[name].abs().max() for name in inside) > 1e-3
    for name, expected in theirs.items():
        bound = 1e-5 * max(expected.abs().max().item(), 1.0)
        torch.testing.assert_close(mine[name], expected, atol=bound, rtol=0, msg=name)


@torch.no_grad()
def test_a_prompt_among_others_is_as_it_is_alone(model, prompts):
    """Without a picture, with several, of other sizes and lengths, behind padding."""
    inputs = model.inputs(prompts, TEMPLATE)
    assert len({len(one.ids) for one in inputs}) >= 3
    together = model.prefix(inputs)
    for row, one in enumerate(inputs):
        alone = model.prefix([one])
        torch.testing.assert_close(
            together.last_hidden[row], alone.last_hidden[0], atol=1e-5, rtol=0
        )
        assert together.next_position[row] == alone.next_position[0]


@torch.no_grad()
def test_an_answer_fed_token_by_token_has_the_hidden_states_of_one_pass(model, prompts):
    inputs, ids = model.inputs(prompts, TEMPLATE), answers()[::GROUP]
    whole = model.advance(model.prefix(inputs), ids, 0)
    prefix = model.prefix(inputs)
    steps = [model.advance(prefix, ids[:, step : step + 1], step) for step in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_ratio_of_a_rollout_is_exactly_one(model, prompts, checkpointing):
    """With gradients or without, first time or second, replay gives the same bits."""
    policy = policy_of(model, checkpointing=checkpointing)
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3, 4])
    first = policy.evaluate(rollout)["token"].log_probs
    with torch.no_grad():
        second = policy.evaluate(rollout)["token"].log_probs
    assert torch.equal(first, second)
    gap = (first - rollout.behavior["token"].log_probs).abs().max()
    assert gap < 1e-4
    assert first.min() < -0.5


@torch.no_grad()
def test_answers_to_a_group_come_off_one_prefix(model, prompts):
    """The vision tower and the prompt run once for the G answers of a prompt."""
    rows = []
    tower = model.module.get_submodule(model.vision[0])
    text = model.network.get_submodule(model.family.text)
    hooks = [
        tower.register_forward_hook(lambda *_: rows.append("tower")),
        text.register_forward_pre_hook(
            lambda _, __, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
        ),
    ]
    policy_of(model).rollout(prompts[:1], GROUP, [1])
    for hook in hooks:
        hook.remove()
    assert rows[:2] == ["tower", 1]
    assert set(rows[2:]) == {GROUP}


def test_a_processor_of_other_tiles_is_refused(model, prompts):
    """A prompt's image tokens are counted before anything is run."""
    family, processor = model.module.config.model_type, model.processor
    if family.startswith("qwen"):
        name, before = "merge_size", processor.image_processor.merge_size
        processor.image_processor.merge_size = 4
    else:
        name = "image_seq_length" if family == "internvl" else "image_seq_len"
        before = getattr(processor, name)
        setattr(processor, name, 3)
    with pytest.raises(ConfigError, match=r"image tokens for .* image features"):
        model.inputs(prompts[:1], TEMPLATE)
    setattr(processor.image_processor if family.startswith("qwen") else processor, name, before)


@torch.no_grad()
def test_a_saved_folder_loads_to_the_same_model(model, prompts, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_vlm(str(tmp_path), dtype=torch.float32)
    assert loaded.family == model.family
    before, after = (
        each.prefix(each.inputs(prompts, TEMPLATE)).last_hidden for each in (model, loaded)
    )
    torch.testing.assert_close(before, after, atol=0, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_vision_tower_at_rest_runs_once_a_rollout(prompts, checkpointing):
    """Its features are kept, and what learns gets the gradient it would get anyway."""
    for family in FAMILIES:
        model = random_model(family)
        policy = policy_of(model, checkpointing=checkpointing)
        inputs, ids = model.inputs(prompts, TEMPLATE), answers()
        expected = gradients(policy, policy.answer_log_probs(inputs, ids, GROUP).sum())
        model.freeze_vision()
        assert not model.vision_learns
        runs = []
        tower = model.module.get_submodule(model.vision[0])
        tower.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        rollout = policy.rollout(prompts, GROUP, [1, 2, 3, 4])
        seen = len(runs)
        assert seen == 2
        replay = rollout.replay
        assert isinstance(replay, TokenReplay)
        found = policy.evaluate(replace(rollout, replay=TokenReplay(replay.prompts, ids, GROUP)))
        assert len(runs) == seen and found["token"].log_probs.requires_grad
        log_probs = policy.answer_log_probs(replay.prompts, ids, GROUP)
        learned = gradients(policy, log_probs.sum())
        rest = {n: g for n, g in expected.items() if not n.startswith(model.vision)}
        assert learned.keys() == rest.keys() != expected.keys()
        for name, gradient in rest.items():
            bound = 1e-5 * max(gradient.abs().max().item(), 1.0)
            torch.testing.assert_close(learned[name], gradient, atol=bound, rtol=0, msg=name)


def test_adapters_sit_on_the_text_model_and_on_the_tower_only_if_asked(prompts, tmp_path):
    """`q_proj` is also a name in the towers of SmolVLM and InternVL."""
    for family in FAMILIES:
        model = random_model(family)
        config = LoraConfig(rank=2, alpha=4, targets=PROJECTIONS)
        add_lora(model.module, config, seed=0, without=model.vision)
        learning = [n for n, w in model.module.named_parameters() if w.requires_grad]
        layers = model.module.config.get_text_config().num_hidden_layers
        assert len(learning) == 2 * len(PROJECTIONS) * layers
        assert not any(name.startswith(model.vision) for name in learning)
        assert not model.vision_learns
        mine = policy_of(model, checkpointing=True)
        inputs = model.inputs(prompts, TEMPLATE)
        found = mine.answer_log_probs(inputs, answers(), GROUP)
        for name, weight in model.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight.data, std=0.5)
        moved = mine.answer_log_probs(inputs, answers(), GROUP)
        assert (moved - found).abs().max() > 1e-3
        assert len(gradients(mine, moved.sum())) == len(learning)
        model.save_pretrained(tmp_path / family)
        fresh = random_model(family)
        fresh.module.load_adapter(str(tmp_path / family))
        again = policy_of(fresh, checkpointing=True).answer_log_probs(inputs, answers(), GROUP)
        torch.testing.assert_close(again, moved, atol=1e-6, rtol=0)
    both = random_model("smolvlm")
    add_lora(both.module, config, seed=0)
    assert both.vision_learns


def test_an_adapter_on_the_output_layer_is_refused(prompts):
    """Its weights are read in chunks; an adapter beside them would learn nothing."""
    model = random_model("smolvlm")
    add_lora(model.module, LoraConfig(rank=2, alpha=4, targets=("lm_head",)), seed=0)
    with pytest.raises(ConfigError, match=r"lora.targets: .*'lm_head' cannot have adapters"):
        policy_of(model).rollout(prompts[:1], GROUP, [1])


class VocabularyRows(TorchDispatchMode):
    """Most rows over the vocabulary that any operation makes at once."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else (made,):
            if isinstance(item, torch.Tensor) and item.shape[-1:] == (self.vocabulary,):
                self.rows = max(self.rows, item.numel() // self.vocabulary)
        return made


@pytest.mark.parametrize("checkpointing", [False, True])
def test_replay_never_holds_logits_of_all_rows_and_tokens(prompts, checkpointing):
    """32 answers of 40 tokens are 1280 rows of logits; 1024 are the most there at once."""
    model = random_model("smolvlm")
    inputs = model.inputs(prompts[:1], TEMPLATE)
    ids = torch.randint(60, 250, (32, 40), generator=torch.Generator().manual_seed(1))
    with VocabularyRows(len(model.head)) as seen:
        policy_of(model, checkpointing=checkpointing).answer_log_probs(
            inputs, ids, 32
        ).sum().backward()
    assert seen.rows == 1024


def test_packed_rows_keep_less_for_the_backward_pass_than_a_cache(prompts):
    """Of a layer only its input: what is kept grows with the layers by one hidden state each."""
    model = random_model("smolvlm")
    inputs = model.inputs(prompts[:1], TEMPLATE)
    ids = torch.randint(60, 250, (8, 20), generator=torch.Generator().manual_seed(1))
    kept = []
    for checkpointing in (False, True):
        sizes: dict[int, int] = {}

        def pack(saved: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            found = policy_of(model, checkpointing=checkpointing).answer_log_probs(inputs, ids, 8)
        weights = {w.untyped_storage().data_ptr() for w in model.module.parameters()}
        kept.append(sum(size for place, size in sizes.items() if place not in weights))
        assert found.requires_grad
    assert kept[1] < kept[0] / 4


def test_answers_of_other_lengths_are_packed_without_padding():
    """Lengths 3 and 1, then 0 and 2: a last token is fed to nobody, an empty answer neither."""
    ids = torch.tensor([[11, 12, 13], [21, 22, 23], [31, 32, 33], [41, 42, 43]])
    packed = pack(ids, torch.tensor([3, 1, 0, 2]), prompts=2)
    assert packed.ids.tolist() == [[11, 12], [41, 0]]
    assert packed.owner.tolist() == [[1, 1], [2, 0]]
    assert packed.place.tolist() == [[0, 1], [0, 0]]
    assert packed.source_row.tolist() == [0, 0, 0, 0, 1, 1]
    assert packed.source_column.tolist() == [0, 1, 2, 0, 0, 1]


def test_an_answer_sees_the_prefix_and_itself():
    """One padded prompt of two tokens, then answers of two and one."""
    seen = block_mask(torch.tensor([[0, 1, 1]]), torch.tensor([[1, 1, 2, 0]]))[0, 0]
    assert [row.nonzero()[:, 0].tolist() for row in seen] == [
        [0],
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 3, 4],
        [1, 2, 5],
        [1, 2, 6],
    ]
