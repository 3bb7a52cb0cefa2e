"""Mean ranks of methods from participants' answers, with intervals and tests: Table 3 of the paper's supplement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.evaluation.figures.diversity import interval
from id3pm.evaluation.user_study.make import KEY_SCHEMA, QUESTIONS, SCHEMA
from id3pm.installation import how_to_install

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


def collect(key_file: Path, answer_files: Sequence[Path]) -> dict[str, list[QuestionResult]]:
    """The results of a study by set, a question at a time.

    Args:
        key_file: study_key.json of `make_study`.
        answer_files: What participants saved.

    Raises:
        InvalidInputError: There is no answer; or a file is of another study, is incomplete, comes twice, or was changed
            by hand. The message names file and rule.
    """
    key = _json(key_file)
    sets = key.get("sets")
    if key.get("schema") != KEY_SCHEMA or not isinstance(sets, Mapping):
        raise InvalidInputError(f"{key_file.name} is no key of a study: give study_key.json of id3pm study make")
    if not answer_files:
        raise InvalidInputError("no answers: give the files that participants saved")
    ranks: list[dict[str, Floats]] = []
    seen: dict[str, str] = {}
    for file in answer_files:
        answers = _json(file)
        ranks.append(_ranks(file.name, answers, key["study"], sets))
        participant = answers.get("participant")
        if not isinstance(participant, str):
            raise InvalidInputError(f"{file.name} names no participant: answers are saved with one")
        if participant in seen:
            raise InvalidInputError(f"{file.name} is of participant {participant!r:.40}, as {seen[participant]}")
        seen[participant] = file.name
    found = {}
    for name, of_set in sets.items():
        by_question = np.stack([of_one[name] for of_one in ranks])  # participants, questions, methods
        found[name] = [
            _result(str(question["id"]), of_set["methods"], by_question[:, row])
            for row, question in enumerate(QUESTIONS)
        ]
    return found


def table(found: Mapping[str, Sequence[QuestionResult]]) -> str:
    """Mean ranks in the layout of Table 3: sets side by side, with intervals, and the tests below."""
    sides = [_side(results) for results in found.values()]
    questions = " | ".join(str(question["id"]) for question in QUESTIONS)
    heads = [f"{name if len(sides) > 1 else 'method'} | {questions}" for name in found]
    height = max(map(len, sides))
    empty = " | ".join([""] * (len(QUESTIONS) + 1))
    rows = [" | ".join(side[row] if row < len(side) else empty for side in sides) for row in range(height)]
    first = next(iter(found.values()))
    lines = [
        f"| {' | '.join(heads)} |",
        "|---" * (len(QUESTIONS) + 1) * len(sides) + "|",
        *(f"| {row} |" for row in rows),
        "",
        f"Mean ranks, 1 is best, of {first[0].participants} participants; 95 % intervals by bootstrap over them.",
    ]
    for name, results in found.items():
        for each in results:
            where = f"{name}, {each.question}" if len(sides) > 1 else each.question
            if np.isfinite(each.friedman):
                lines.append(
                    f"{where}: Friedman chi-squared {each.friedman:.2f}, p = {each.p_value:.3g}, Kendall's W = "
                    f"{each.kendalls_w:.2f}."
                )
            else:
                lines.append(f"{where}: no test with fewer than three methods or two participants.")
    return "\n".join(lines) + "\n"


def _side(results: Sequence[QuestionResult]) -> list[str]:
    """The rows of one set, without the bars at the ends."""
    best = {each.question: min(each.mean_ranks.values()) for each in results}
    return [
        f"{method} | {' | '.join(_cell(each, method, best[each.question]) for each in results)}"
        for method in results[0].mean_ranks
    ]


def _cell(result: QuestionResult, method: str, best: float) -> str:
    low, high = result.intervals[method]
    mean = f"{result.mean_ranks[method]:.2f}"
    return f"{f'**{mean}**' if result.mean_ranks[method] == best else mean} ({low:.2f} .. {high:.2f})"


def _ranks(file: str, answers: Mapping[str, Any], study: str, sets: Mapping[str, Any]) -> dict[str, Floats]:
    """By set one participant's mean ranks over targets, [questions, methods]."""
    if answers.get("schema") != SCHEMA or answers.get("study") != study:
        raise InvalidInputError(f"{file} is of study {answers.get('study')!r:.40}: the key is of {study}")
    questions = [question["id"] for question in QUESTIONS]
    sums = {name: np.zeros((len(questions), len(of_set["methods"]))) for name, of_set in sets.items()}
    set_of = {item: name for name, of_set in sets.items() for item in of_set["items"]}
    done = set()
    rows = answers.get("answers")
    for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
        where = f"answer {number} of {file}"
        item, question, ranking = (
            row.get(name) if isinstance(row, Mapping) else None for name in ("item", "question", "ranking")
        )
        if not isinstance(item, str) or item not in set_of or question not in questions:
            raise InvalidInputError(
                f"{where} is on item {item!r:.40}, question {question!r:.40}: the study has no such"
            )
        of_set = sets[set_of[item]]
        owners = of_set["items"][item]["candidates"]
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
            sums[set_of[item]][questions.index(question), of_set["methods"].index(owners[token])] += rank
    if len(done) != len(set_of) * len(questions):
        raise InvalidInputError(f"{file} has {len(done)} answers: the study has {len(set_of) * len(questions)}")
    return {name: total / len(sets[name]["items"]) for name, total in sums.items()}


def _result(question: str, methods: Sequence[str], ranks: Floats) -> QuestionResult:
    """Args: `ranks`: Mean ranks, [participants, methods]."""
    statistic = p_value = agreement = float("nan")
    if len(methods) >= 3 and len(ranks) >= 2:
        statistic, p_value = _friedman(ranks)
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


def _friedman(ranks: Floats) -> tuple[float, float]:
    """Friedman's chi-squared and its p-value.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy import stats  # slow to import, and only needed here
    except ImportError as error:
        raise MissingExtraError(f"the test of the ranks needs scipy: {how_to_install('evaluate')}") from error
    statistic, p_value = stats.friedmanchisquare(*ranks.T)
    return float(statistic), float(p_value)


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
