"""Pages: one small file each that loads nothing, every text escaped, honest about what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reports as built
from support.reports import PageReader

from pipeline.monitoring.dictionary import PARTS
from pipeline.monitoring.report.axes import figure, nice_ticks, tick_text
from pipeline.monitoring.report.facts import ArmsSlice, RolloutFacts
from pipeline.monitoring.report.histogram import histogram
from pipeline.monitoring.report.lines import Series, line_chart
from pipeline.monitoring.report.links import NO_LINKS, Links
from pipeline.monitoring.report.quality import estimated_rows
from pipeline.monitoring.report.render import dictionary_html, job_html, jobs_html, run_html, verdict_html
from pipeline.monitoring.report.values import Scores

KB = 1000
LINKS = Links(
    jobs="jobs.html",
    job=lambda name: f"{name}.html",
    dictionary=lambda name: f"{name}-dictionary.html",
    run=lambda job, run_id, day: f"{job}-{run_id}-{day}.html",
    verdict=lambda job, number: f"{job}-verdict-{number}.html",
)
HOSTILE = (
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "</title></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!-- ]]> &lt; \u202e\x00",
    "javascript:alert(1)",
)

Page = Callable[[str | None], str]


def shown_run(text: str | None) -> str:
    page = built.run_page()
    return run_html(page if text is None else built.with_texts(page, text), LINKS)


def shown_failure(text: str | None) -> str:
    page = built.unknown_page(built.failed_run())
    return run_html(page if text is None else built.with_texts(page, text), LINKS)


def shown_job(text: str | None) -> str:
    page = built.job_page()
    return job_html(page if text is None else built.with_texts(page, text), LINKS)


def shown_jobs(text: str | None) -> str:
    lines = built.job_lines()
    return jobs_html(lines if text is None else built.with_texts(lines, text), LINKS)


def shown_verdict(text: str | None) -> str:
    page = built.verdict_page()
    return verdict_html(page if text is None else built.with_texts(page, text), LINKS)


def shown_dictionary(text: str | None) -> str:
    page = built.dictionary()
    return dictionary_html(page if text is None else built.with_texts(page, text), LINKS)


every_page = pytest.mark.parametrize(
    "page", [shown_run, shown_failure, shown_job, shown_jobs, shown_verdict, shown_dictionary]
)


@every_page
def test_a_page_is_sound_html_and_loads_nothing(page: Page) -> None:
    html = page(None)
    read = PageReader(html)
    assert read.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form"})
    assert {name for name, _ in read.attributes}.isdisjoint({"src", "srcset", "action", "xlink:href"})
    assert not re.search(r"@import|url\(", html)
    hrefs = [value or "" for name, value in read.attributes if name == "href"]
    assert [href for href in hrefs if re.match(r"[a-z]+:|//", href)] == []


@every_page
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_any_field_stays_text(page: Page, text: str) -> None:
    read = PageReader(page(text))
    ours = PageReader(page(None))
    assert read.tags <= ours.tags
    assert {name for name, _ in read.attributes} <= {name for name, _ in ours.attributes}
    assert not any(name.startswith("on") for name, _ in read.attributes)


@given(st.text(max_size=40))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    run = built.run_facts(error_type="Failure", error_message=f"so: {text} end", status="failed")
    html = run_html(built.unknown_page(run), NO_LINKS)
    (shown,) = re.findall(r"<pre>so: (.*?) end</pre>", html, flags=re.DOTALL)
    escaped = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}
    assert shown == "".join(escaped.get(letter, letter) for letter in text)


def test_the_page_of_a_verdict_tells_each_reason_and_what_it_rests_on() -> None:
    text = PageReader(shown_verdict(None)).text
    assert "Refused: version 3 against champion 1, on 28 nights, by slices, declared behaviour." in text
    assert "Worse by more than 10.0% and beyond chance: 1 of 2, shop bad (" in text
    assert "price falling 1,000 3" in text
    assert "The champion was trained on 2 of these nights" in text
    assert "2024-12-01 EmptyPartition: the partition must have rows" in text
    assert "tiny +42.6 % not judged" in text


def test_the_band_of_a_verdict_is_drawn_where_bounds_say_something() -> None:
    html = shown_verdict(None)
    assert html.count('class="band dashed"') == 1
    assert 'class="band' not in verdict_html(built.verdict_page(5), LINKS)


def test_the_worst_slices_stand_first_and_are_marked() -> None:
    html = shown_verdict(None)
    assert [name for name in ("bad", "good", "tiny") if f'<td class="wrap">{name}</td>' in html] == sorted(
        ("bad", "good", "tiny"), key=lambda name: html.index(f'<td class="wrap">{name}</td>')
    )
    assert html.count('class="worse"') == 1


def test_a_slice_that_refuses_though_the_champion_lost_nothing_on_it_is_not_called_unjudged() -> None:
    facts = built.verdict_page().verdict
    bounds = {"mean": 5.0, "lower": 4.0, "upper": 6.0}
    free = {"column": "shop", "value": "free", "rows": 9000, "loss": {"champion": 0.0, "challenger": 5.0}}
    found = [*facts.figures["slices"], free | {"bounds": bounds}]
    verdict = replace(facts, figures=dict(facts.figures) | {"slices": found})
    html = verdict_html(built.verdict_page(verdict=verdict), LINKS)
    assert "worse, of a loss of 0 9,000" in PageReader(html).text
    assert html.index('<td class="wrap">free</td>') < html.index('<td class="wrap">bad</td>')


def test_a_verdict_tells_how_many_values_of_a_slice_it_does_not_show() -> None:
    facts = built.verdict_page().verdict
    verdict = replace(facts, figures=dict(facts.figures) | {"slice_values": {"shop": 300}})
    text = PageReader(verdict_html(built.verdict_page(verdict=verdict), LINKS)).text
    assert "297 more values are not shown" in text


def test_a_verdict_without_any_night_has_a_page() -> None:
    text = PageReader(verdict_html(built.verdict_page(1, **no_night()), LINKS)).text
    assert "No night was answered by both" in text


def no_night() -> dict[str, object]:
    facts = built.verdict_page(1).verdict
    bare = dict(facts.figures) | {"nights": [], "slices": [], "tests": []}
    return {"verdict": replace(facts, figures=bare)}


def test_the_jobs_index_links_to_its_verdicts() -> None:
    hrefs = {value for name, value in PageReader(shown_job(None)).attributes if name == "href"}
    assert "toy-verdict-7.html" in hrefs


def test_a_year_of_nights_stays_under_500_kb() -> None:
    sizes = {
        "run": len(run_html(built.run_page(366), LINKS).encode()),
        "job": len(job_html(built.job_page(366), LINKS).encode()),
    }
    assert {name: size for name, size in sizes.items() if size > 500 * KB} == {}


def test_a_page_without_links_has_names_instead() -> None:
    read = PageReader(run_html(built.run_page(), NO_LINKS))
    assert [
        value for name, value in read.attributes if name == "href" and not str(value).startswith("#")
    ] == []
    assert "2024-12-30" in read.text


def test_the_runs_page_links_to_the_run_before_and_to_the_job() -> None:
    read = PageReader(shown_run(None))
    hrefs = {value for name, value in read.attributes if name == "href"}
    assert {"toy-run-2024-12-30-2024-12-30.html", "toy.html", "toy-dictionary.html", "jobs.html"} <= hrefs


def test_the_runs_page_says_what_happened() -> None:
    text = PageReader(shown_run(None)).text
    assert "990 of 1,000 rows were scored by version 1; 7 answered by a fallback and 3 withheld." in text
    assert "1,000 rows in = 990 scored + 7 by a fallback + 3 withheld." in text
    assert "expect_column_values_to_be_between amount quarantined 7 0.7 %" in text
    assert "2 rules, 1 not met" in text
    assert "48 more columns" in text


def test_what_was_not_measured_is_said_and_never_0() -> None:
    unmeasured = replace(built.unknown_page(built.run_facts()), declared=built.DECLARED)
    text = PageReader(run_html(unmeasured, LINKS)).text
    assert "Drift Not measured yet." in text
    assert "Realised quality: not measured yet; labels are expected 2 days after the day." in text
    assert "No scores of this run are in the warehouse." in text
    assert "Version 1 is not registered here." in text


def test_a_failed_run_shows_its_error_and_no_counts() -> None:
    text = PageReader(shown_failure(None)).text
    assert "The run failed after the stage “planned”: nothing of it was published." in text
    assert "EmptyPartition the day must have rows" in text
    assert "Conservation Nothing was read." in text
    assert "Rows in – By a fallback – Withheld –" in text
    assert "Nothing of this run was published, so it is not judged." in text


def test_a_job_without_outcomes_is_not_waited_for() -> None:
    declared = replace(built.DECLARED, label=None, mature_after_days=None)
    page = replace(built.unknown_page(built.run_facts()), declared=declared)
    assert (
        "declares no outcomes, so realised quality is not measured" in PageReader(run_html(page, LINKS)).text
    )


def test_of_a_model_of_values_it_is_said_that_there_is_no_estimate() -> None:
    unmeasured = replace(
        built.unknown_page(built.run_facts()),
        declared=replace(built.DECLARED, output="value", threshold=None),
    )
    assert "No estimate before labels come" in PageReader(run_html(unmeasured, LINKS)).text


def test_a_broken_declaration_hides_no_run() -> None:
    page = replace(built.run_page(), declared=None)
    assert "declaration not readable" in PageReader(run_html(page, LINKS)).text


def test_the_index_counts_days_by_what_readers_see() -> None:
    text = PageReader(shown_job(None)).text
    assert "✓ published 46" in text
    assert "~ published, degraded 46" in text
    assert "○ missing 45" in text


def test_the_index_of_a_new_job_has_nothing_to_show() -> None:
    page = built.job_page(0, days=(), recent=(), versions=(), promotions=(), alerts=(), champion=None)
    text = PageReader(job_html(page, LINKS)).text
    assert "No expected day has passed yet." in text
    assert "No run was planned yet." in text


def test_every_metric_has_one_meaning_where_it_is_kept() -> None:
    for meanings in PARTS.values():
        names = [meaning.metric for meaning in meanings]
        assert len(names) == len(set(names))
    text = PageReader(shown_dictionary(None)).text
    assert all(meaning.sentence in text for meanings in PARTS.values() for meaning in meanings)


# Charts


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(0, 1e6, allow_nan=False),
)
def test_ticks_enclose_what_is_drawn_and_differ(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    slack = 1e-6 * max(abs(low), abs(low + width), 1)  # what is less is drawn as nothing
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack
    assert 2 <= len(ticks) <= 8
    assert len({tick_text(tick, ticks, "") for tick in ticks}) == len(ticks)


def test_figures_have_three_digits() -> None:
    values = (0, 0.00001234, 0.01234, 0.9996, 1.5, 99.96, 1234567.8)
    shown = ["0", "1.2e-05", "0.0123", "1.00", "1.50", "100", "1,234,568"]
    assert [figure(value) for value in values] == shown
    assert [figure(value, "%") for value in (0.0, 0.123, 1.0)] == ["0.0 %", "12.3 %", "100 %"]


def test_a_day_without_a_value_is_a_gap() -> None:
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(5)]
    series = Series("auc", list(zip(days, [0.7, 0.8, None, 0.9, 0.8], strict=True)))
    chart = line_chart("AUC", [series])
    assert chart is not None
    (line,) = chart.lines
    assert line.path.count("M") == 2
    assert (line.last_text, line.last_day) == ("0.800", "5 Jan")


def test_a_chart_of_nothing_is_none() -> None:
    assert line_chart("AUC", [Series("auc", [(date(2024, 1, 1), None)])]) is None


def test_a_share_that_is_always_0_is_drawn_on_the_ground() -> None:
    chart = line_chart("share", [Series("a", [(date(2024, 1, 1), 0.0)])], unit="%", from_zero=True)
    assert chart is not None
    assert (chart.y_ticks[0].text, chart.y_ticks[0].at) == ("0.00 %", chart.lines[0].last[1])


def test_bars_are_shares_so_that_nights_of_any_size_compare() -> None:
    drawn = histogram(Scores(0.0, 1.0, (1, 3), (100, 300)), 0.5)
    assert [bar.text for bar in drawn.bars] == ["0 to 0.5: 25.0 %", "0.5 to 1: 75.0 %"]
    assert drawn.outline is not None
    assert {bar.y for bar in drawn.bars} == {
        float(place.split(",")[1]) for place in drawn.outline[1:].split(" L")
    }


SHADOWED = ArmsSlice("all", "all", 200, 200, 0, 50, 62, 0.41, 0.44, changed=14)


def test_beside_an_estimate_of_the_champions_arm_stands_what_that_arm_realised() -> None:
    all_rows = built.realised(0)
    of_arms = [
        replace(one, arm=arm, value=value)
        for one in all_rows
        for arm, value in (("champion", 0.61), ("challenger", 0.82))
    ]
    whole, split = estimated_rows(all_rows), estimated_rows([*all_rows, *of_arms])
    assert whole is not None
    assert split is not None
    assert (whole.name, whole.metrics["auc"]) == ("all rows", 0.7)
    assert (split.name, split.metrics["auc"]) == ("champion", 0.61)
    told = "of the champion's arm, realised too"
    assert told in with_rollout(kind="canary")
    assert told not in with_rollout(kind="shadow")


def with_rollout(*slices: ArmsSlice, kind: Literal["shadow", "canary"] = "shadow") -> str:
    share = None if kind == "shadow" else 0.1
    return run_html(built.run_page(rollout=RolloutFacts(kind, 2, share, slices)), NO_LINKS)


def test_a_shadow_tells_what_it_would_have_decided_otherwise_by_slice() -> None:
    html = with_rollout(
        SHADOWED, replace(SHADOWED, slice_column="kind", slice_value="<b>", champion_rows=70, changed=7)
    )
    assert "Version 2 ran as a shadow" in html
    assert "<dd>14<small>7.0 %</small></dd>" in html
    assert "kind &lt;b&gt;" in html
    assert "Beside the champion" not in shown_run(None)


def test_a_job_that_decides_nothing_is_not_said_to_decide() -> None:
    page = built.run_page(rollout=RolloutFacts("shadow", 2, None, [replace(SHADOWED, changed=None)]))
    assert page.declared is not None
    html = run_html(replace(page, declared=replace(page.declared, output="value", threshold=None)), NO_LINKS)
    assert "Champion decides yes" not in html
    assert "Would be decided otherwise" not in html
    assert "<dt>Not answered by it</dt><dd>0</dd>" in html


def test_a_canary_tells_who_answered_how_many() -> None:
    html = with_rollout(replace(SHADOWED, failed_rows=5, changed=None), kind="canary")
    assert "Version 2 answered 10.0 % of the keys, as a canary." in html
    assert "<dt>Not answered by it</dt><dd>5</dd>" in html
    assert "How it answered: not measured yet." in with_rollout(kind="canary")
