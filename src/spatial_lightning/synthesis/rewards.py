"""A geometric judge: scores any response against the exact scene with the rewards of arXiv:2506.21656 App. A.

A response is read with the grammar, each statement becomes evidence with a value in [0, 1], and the evidence is summed
into the paper's components. Whatever the grammar does not understand earns nothing and breaks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spatial_lightning.records import DESCRIPTION, REASONING, Question, Response, Segment
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.coherence import coherence, rule_application
from spatial_lightning.synthesis.evidence import Asked, Evidence, judge, judge_mentions
from spatial_lightning.synthesis.facts import SceneFacts, measure
from spatial_lightning.synthesis.grammar import Parsed, parse_response, segments
from spatial_lightning.synthesis.rounding import read_length

MEAN, WEIGHTED = "mean", "weighted"
HEDGED_WEIGHT = 0.8
AUXILIARY_WEIGHT = 0.8

FINAL_TOLERANCE = 0.1
FINAL_RELATIVE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Rewards:
    """Components of a response's reward, each in [0, 1] except the spatial ones, which are in [0, 4].

    Attributes:
        spatial_description, spatial_reasoning: R_sp of each segment.
    """

    existence: float
    attribute_accuracy: float
    completeness: float
    appropriateness: float
    factual_consistency: float
    logical_coherence: float
    rule_application: float
    conclusion_validity: float
    spatial_description: float
    spatial_reasoning: float

    @property
    def visual_consistency(self) -> float:
        """R_vc, in [0, 4]."""
        return self.existence + self.attribute_accuracy + self.completeness + self.appropriateness

    @property
    def logical_consistency(self) -> float:
        """R_lc, in [0, 4]."""
        return self.factual_consistency + self.logical_coherence + self.rule_application + self.conclusion_validity

    @property
    def description(self) -> dict[str, float]:
        """Rewards of the description segment by name: ``vc`` and ``sp``."""
        return {"vc": round(self.visual_consistency, 9), "sp": round(self.spatial_description, 9)}

    @property
    def reasoning(self) -> dict[str, float]:
        """Rewards of the reasoning segment by name: ``lc`` and ``sp``."""
        return {"lc": round(self.logical_consistency, 9), "sp": round(self.spatial_reasoning, 9)}

    @property
    def total(self) -> float:
        """R_vc + R_sp + R_lc, in [0, 16]; the paper ranks responses by it."""
        return sum(self.description.values()) + sum(self.reasoning.values())


def spatial_reward(evidence: Sequence[Evidence], *, aggregate: str = MEAN) -> float:
    """R_sp of one segment, in [0, 4]; 0 without spatial statements (arXiv:2506.21656 App. A).

    ``mean`` is (4/n) sum W_u W_c r, with W_u 1 for certain and 0.8 for hedged statements and W_c 1 for statements about
    the asked relation and 0.8 for auxiliary ones; ``weighted`` is 4 sum(W r) / sum(W), which is 4 whenever all is true.

    Raises:
        ValueError: an unknown aggregate.
    """
    if aggregate not in (MEAN, WEIGHTED):
        raise ValueError(f"aggregate is {aggregate!r}; allowed: {MEAN}, {WEIGHTED}")
    if not evidence:
        return 0.0
    weights = [(HEDGED_WEIGHT if e.hedged else 1.0) * (1.0 if e.asked else AUXILIARY_WEIGHT) for e in evidence]
    earned = sum(weight * e.value for weight, e in zip(weights, evidence, strict=True))
    return min(4.0, 4 * earned / (len(weights) if aggregate == MEAN else sum(weights)))


def score_response(text: str, scene: Scene | SceneFacts, question: Question, *, aggregate: str = MEAN) -> Rewards:
    """Score a response to a question about a scene; any text is allowed, the worst gets 0 throughout.

    - Existence: share of mentioned objects that are in the scene. Attribute accuracy: share of stated attributes that
      are true. Completeness: share of the asked objects that are described. Appropriateness: share of the description's
      sentences that describe objects, without repetition.
    - Factual consistency: mean truth of the reasoning's statements. Logical coherence: share of inferences that follow
      from what was stated before. Rule application: share of the parts of the rule for this kind of question that are
      there. Conclusion validity: 1 for the right final answer (lengths within 0.1 m or 5 %), else 0.
    - Spatial rewards: see :func:`spatial_reward`. The final answer is no spatial statement, so it counts once.

    A true chain earns R_vc = R_lc = R_sp,reason = 4. Its description also gives places that were not asked for, so with
    ``mean`` its R_sp,desc is 4 (asked + 0.8 auxiliary) / n: 3.467 when one of three places is asked for, 3.2 when none.

    Args:
        scene: the scene, or its facts where they are measured already.
        question: what was asked; its kind, text and true answer are used.
    """
    facts = measure(scene) if isinstance(scene, Scene) else scene
    asked = Asked.of(question, facts)
    parsed = parse_response(text)
    described = [e for statement in parsed.description for e in judge(statement, facts, asked)]
    reasoned = [e for statement in parsed.reasoning for e in judge(statement, facts, asked)]
    mentions = judge_mentions(parsed.description, facts)
    return Rewards(
        existence=_mean(mentions.exists),
        attribute_accuracy=_mean(mentions.attributes),
        completeness=_mean([float(index in mentions.described) for index in asked.objects]),
        appropriateness=_appropriateness(parsed),
        factual_consistency=_mean([e.value for e in reasoned]),
        logical_coherence=coherence(parsed),
        rule_application=rule_application(parsed.reasoning, question.kind, asked, facts),
        conclusion_validity=float(concludes_right(parsed, question)),
        spatial_description=spatial_reward(described, aggregate=aggregate),
        spatial_reasoning=spatial_reward(reasoned, aggregate=aggregate),
    )


def scored_response(text: str, question: Question, scene: Scene | SceneFacts, *, aggregate: str = MEAN) -> Response:
    """The response cut in segments that tile the text, each with the rewards the judge gives it.

    Raises:
        RecordError: empty text.
    """
    rewards = score_response(text, scene, question, aggregate=aggregate)
    by_name = {DESCRIPTION: rewards.description, REASONING: rewards.reasoning}
    return Response(text, tuple(Segment(s.name, s.start, s.end, by_name[s.name]) for s in segments(text)))


def concludes_right(parsed: Parsed, question: Question) -> bool:
    """Whether a response has a final answer, and the right one."""
    return parsed.final is not None and is_right(parsed.final, question)


def is_right(final: str, question: Question) -> bool:
    """Whether a final answer is right: the right option, or a length within 0.1 m or 5 % of the true one."""
    if question.value is not None:
        length = read_length(final)
        if length is None:
            return False
        return abs(length - question.value) <= max(FINAL_TOLERANCE, FINAL_RELATIVE_TOLERANCE * question.value)
    return final.strip(" .").removeprefix("the ") == true_answer(question)


def true_answer(question: Question) -> str:
    """The short true answer of a question, whether its answer is short or a chain that ends with it."""
    if question.style == "direct":
        return question.answer.lower()
    return parse_response(question.answer).final or ""


def _appropriateness(parsed: Parsed) -> float:
    if not parsed.description_sentences:
        return 0.0
    return len(set(parsed.description)) / parsed.description_sentences


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
