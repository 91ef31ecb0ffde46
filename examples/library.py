"""mmrl as a library: score samples, build a recipe from a dictionary, train, read the metrics.

Run it in the project's folder: `python examples/library.py`. Half a minute on a CPU.
"""

from __future__ import annotations

from mmrl.reward import load_reward
from mmrl.train.loop import load_config
from mmrl.train.session import train
from mmrl.types import Prompt, TextSample

CONFIG = {
    "pipeline": "sage_grpo",
    "output": "runs/library",  # nothing is written there: that is what `mmrl train` does
    "model": "assets/tiny-wan",
    "prompts": "assets/prompts/digits_train.jsonl",
    "group_size": 2,
    "video": {"num_frames": 5, "height": 16, "width": 16, "max_sequence_length": 8},
    "sampling": {"num_steps": 4, "eta": 0.5, "shift": 3.0},
    "clip": 1e-3,
    "rewards": {"motion_direction": 1.0, "smoothness": {"weight": 0.0, "tolerance": 0.1}},
    "trust_region": {"periodic": {"refresh_every": 2, "coefficient": 0.01}},
    "train": {"steps": 2, "prompts_per_step": 2, "rows": 4, "optimizer": {"lr": 1e-3}},
}


def score_answers() -> None:
    """A registered reward takes a list of samples and gives a number each."""
    question = Prompt("Which? A) CT, B) MRI", answer="B")
    answers = [TextSample(question, f"<answer>{letter}</answer>") for letter in "AB"]
    print("accuracy:", load_reward("accuracy")(answers).tolist())


def train_two_steps() -> None:
    """Every step's metrics are those of metrics.jsonl; the policy is there all along."""
    run = train(load_config(CONFIG))
    for metrics in run:
        print(f"step {run.state.step}: reward {metrics['reward/mean']:.3f}")
    prompt = run.recipe.prompts[0]
    samples = run.recipe.policy.sample([prompt], [0])
    scores = run.recipe.rewards.score_samples(samples)
    print(prompt.text, {name: round(values.item(), 3) for name, values in scores.items()})


if __name__ == "__main__":
    score_answers()
    train_two_steps()
