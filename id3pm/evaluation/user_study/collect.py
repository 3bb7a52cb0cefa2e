"""Mean ranks of methods from participants' answers, with intervals and tests: Table 3 of the paper's supplement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.diversity import interval
from id3pm.evaluation.user_study.make import QUESTIONS, SCHEMA

MAX_BYTES = 10_000_000  # of one participant's file
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionResult:
    """What participants said on one question.

    Attributes:
        question: Its name.
        mean_ranks: By method, 1 is best: mean over participants of their means over targets.
        intervals: By method the 95 % interval of that mean (bootstrap over participants).
        participants: How many.
        friedman: Friedman's chi-squared of the participants' mean ranks; NaN with fewer than three methods or two
            participants.
        p_value: Of that statistic; small where methods differ.
        kendalls_w: Agreement of the participants, 0 .. 1.
    """

    question: str
    mean_ranks: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    participants: int
    friedman: float
    p_value: float
    kendalls_w: float


def collect(key_file: Path, answer_files: Sequence[Path]) -> list[QuestionResult]:
    """The results of a study, a question at a time.

    Args:
        key_file: study_key.json of `make_study`.
        answer_files: What participants saved.

    Raises:
        InvalidInputError: There is no answer; or a file is of another study, is incomplete, comes twice, or was changed
            by hand. The message names file and rule.
    """
    key = _json(key_file)
    methods = key.get("methods")
    if key.get("schema") != SCHEMA or not isinstance(methods, list) or not isinstance(key.get("items"), Mapping):
        raise InvalidInputError(f"{key_file.name} is no key of a study: give study_key.json of id3pm study make")
    if not answer_files:
        raise InvalidInputError("no answers: give the files that participants saved")
    ranks: list[Floats] = []
    seen: dict[str, str] = {}
    for file in answer_files:
        answers = _json(file)
        ranks.append(_ranks(file.name, answers, key))
        participant = answers.get("participant")
        if not isinstance(participant, str):
            raise InvalidInputError(f"{file.name} names no participant: answers are saved with one")
        if participant in seen:
            raise InvalidInputError(f"{file.name} is of participant {participant!r:.40}, as {seen[participant]}")
        seen[participant] = file.name
    by_question = np.stack(ranks)  # participants, questions, methods
    return [_result(str(question["id"]), methods, by_question[:, row]) for row, question in enumerate(QUESTIONS)]


def table(results: Sequence[QuestionResult]) -> str:
    """Mean ranks in the layout of Table 3, with intervals, and the tests below."""
    methods = list(results[0].mean_ranks)
    best = {each.question: min(each.mean_ranks.values()) for each in results}
    lines = [
        f"| method | {' | '.join(each.question for each in results)} |",
        "|---" * (len(results) + 1) + "|",
        *(
            f"| {method} | {' | '.join(_cell(each, method, best[each.question]) for each in results)} |"
            for method in methods
        ),
        "",
        f"Mean ranks, 1 is best, of {results[0].participants} participants; 95 % intervals by bootstrap over them.",
    ]
    for each in results:
        if np.isfinite(each.friedman):
            lines.append(
                f"{each.question}: Friedman chi-squared {each.friedman:.2f}, p = {each.p_value:.3g}, Kendall's W = "
                f"{each.kendalls_w:.2f}."
            )
        else:
            lines.append(f"{each.question}: no test with fewer than three methods or two participants.")
    return "\n".join(lines) + "\n"


def _cell(result: QuestionResult, method: str, best: float) -> str:
    low, high = result.intervals[method]
    mean = f"{result.mean_ranks[method]:.2f}"
    return f"{f'**{mean}**' if result.mean_ranks[method] == best else mean} ({low:.2f} .. {high:.2f})"


def _ranks(file: str, answers: Mapping[str, Any], key: Mapping[str, Any]) -> Floats:
    """One participant's mean ranks over targets, [questions, methods]."""
    if answers.get("schema") != SCHEMA or answers.get("study") != key["study"]:
        raise InvalidInputError(f"{file} is of study {answers.get('study')!r:.40}: the key is of {key['study']}")
    methods, items = list(key["methods"]), key["items"]
    questions = [question["id"] for question in QUESTIONS]
    sums, done = np.zeros((len(questions), len(methods))), set()
    rows = answers.get("answers")
    for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
        where = f"answer {number} of {file}"
        item, question, ranking = (
            row.get(name) if isinstance(row, Mapping) else None for name in ("item", "question", "ranking")
        )
        if not isinstance(item, str) or item not in items or question not in questions:
            raise InvalidInputError(
                f"{where} is on item {item!r:.40}, question {question!r:.40}: the study has no such"
            )
        owners = items[item]["candidates"]
        if (
            not isinstance(ranking, list)
            or not all(isinstance(each, str) for each in ranking)
            or sorted(ranking) != sorted(owners)
        ):
            raise InvalidInputError(f"{where} does not rank each picture of its item once")
        if (item, question) in done:
            raise InvalidInputError(f"{where} is on an item and a question that were answered before")
        done.add((item, question))
        for rank, token in enumerate(ranking, 1):
            sums[questions.index(question), methods.index(owners[token])] += rank
    if len(done) != len(items) * len(questions):
        raise InvalidInputError(f"{file} has {len(done)} answers: the study has {len(items) * len(questions)}")
    return sums / len(items)


def _result(question: str, methods: Sequence[str], ranks: Floats) -> QuestionResult:
    """Args: `ranks`: Mean ranks, [participants, methods]."""
    statistic = p_value = agreement = float("nan")
    if len(methods) >= 3 and len(ranks) >= 2:
        statistic, p_value = map(float, stats.friedmanchisquare(*ranks.T))
        agreement = statistic / (len(ranks) * (len(methods) - 1))
    return QuestionResult(
        question=question,
        mean_ranks={method: float(ranks[:, row].mean()) for row, method in enumerate(methods)},
        intervals={method: interval(ranks[:, row]) for row, method in enumerate(methods)},
        participants=len(ranks),
        friedman=statistic,
        p_value=p_value,
        kendalls_w=agreement,
    )


def _json(file: Path) -> Mapping[str, Any]:
    if file.stat().st_size > MAX_BYTES:
        raise InvalidInputError(f"{file.name} has {file.stat().st_size} bytes: at most {MAX_BYTES} are read")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{file.name} is not JSON: {str(error)[:100]}") from error
    if not isinstance(found, Mapping):
        raise InvalidInputError(f"{file.name} is no JSON object")
    return found
