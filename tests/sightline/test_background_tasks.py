"""Background tasks: a trace of their own, linked to the request, with the request's correlation ID."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgi import call, http_scope
from fastapi import BackgroundTasks, FastAPI
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse

from sightline import SettingsError, background, correlation_id

METRIC = "sightline.background.duration"
HEADERS = [(b"x-correlation-id", b"abc")]


async def send_mail(seconds=0.0):
    await asyncio.sleep(seconds)
    logging.getLogger("mail").warning("sent")


def fail():
    raise ValueError("password=hunter2 is wrong")


def make_app():
    app = FastAPI()

    @app.get("/late")
    async def late(tasks: BackgroundTasks):
        tasks.add_task(send_mail, 0.05)

    @app.get("/two")
    async def two(tasks: BackgroundTasks):
        tasks.add_task(send_mail)
        tasks.add_task(send_mail)

    @app.get("/response")
    async def response():
        return PlainTextResponse("ok", background=BackgroundTask(send_mail))

    @app.get("/fail")
    async def failing(tasks: BackgroundTasks):
        tasks.add_task(fail)

    @app.get("/sync")
    def sync(tasks: BackgroundTasks):
        otel_context.attach(baggage.set_baggage("customer", "7"))
        tasks.add_task(lambda: seen.append(baggage.get_baggage("customer")))

    return app


seen = []


@pytest.fixture
def app(telemetry):
    app = make_app()
    telemetry.instrument(app)
    return app


def serve(app, path):
    return asyncio.run(call(app, http_scope(path, headers=HEADERS)))


def spans(telemetry, path):
    tasks = [span for span in telemetry.spans if span.name.startswith("background ")]
    (request,) = [span for span in telemetry.spans if span.name == f"GET {path}"]
    return request, tasks


def test_a_task_has_its_own_trace_linked_to_the_request(app, telemetry):
    serve(app, "/late")
    request, (task,) = spans(telemetry, "/late")
    assert task.name == "background send_mail"
    assert task.parent is None
    assert task.context.trace_id != request.context.trace_id
    assert [(link.context.trace_id, link.context.span_id) for link in task.links] == [
        (request.context.trace_id, request.context.span_id)
    ]
    assert task.attributes["sightline.correlation_id"] == "abc"
    assert task.attributes["code.function.name"] == f"{send_mail.__module__}.send_mail"


def test_a_task_is_not_part_of_the_request(app, telemetry):
    serve(app, "/late")
    request, (task,) = spans(telemetry, "/late")
    assert request.end_time <= task.start_time
    (point,) = telemetry.points("http.server.request.duration")
    assert point.sum < 0.05


def test_each_task_has_one_span_and_one_point(app, telemetry):
    serve(app, "/two")
    assert len(spans(telemetry, "/two")[1]) == 2
    (point,) = telemetry.points(METRIC)
    assert point.count == 2
    assert dict(point.attributes) == {"code.function.name": f"{send_mail.__module__}.send_mail"}


@pytest.mark.parametrize("path", ["/late", "/fail"])
def test_the_span_lasts_exactly_as_long_as_the_histogram_says(app, telemetry, path):
    serve(app, path)
    _, (task,) = spans(telemetry, path)
    (point,) = telemetry.points(METRIC)
    assert point.sum == (task.end_time - task.start_time) / 1e9


def test_the_task_of_a_response_is_captured_too(app, telemetry):
    serve(app, "/response")
    assert [task.name for task in spans(telemetry, "/response")[1]] == ["background send_mail"]


def test_the_log_records_of_a_task_carry_its_trace_and_the_correlation_id(app, telemetry):
    serve(app, "/late")
    _, (task,) = spans(telemetry, "/late")
    (record,) = [data.log_record for data in telemetry.logs if data.instrumentation_scope.name == "mail"]
    assert record.attributes["correlation_id"] == "abc"
    assert record.trace_id == task.context.trace_id


def test_a_failed_task_is_recorded_redacted_and_its_exception_passes_through(app, telemetry):
    assert isinstance(serve(app, "/fail").error, ValueError)
    request, (task,) = spans(telemetry, "/fail")
    assert task.status.status_code is StatusCode.ERROR
    assert task.attributes["error.type"] == "ValueError"
    (event,) = task.events
    assert event.attributes["exception.message"] == "password=REDACTED is wrong"
    assert request.events == ()
    assert request.status.status_code is StatusCode.UNSET
    (point,) = telemetry.points(METRIC)
    assert point.attributes["error.type"] == "ValueError"


def test_what_a_sync_handler_puts_into_the_context_reaches_its_task(app, telemetry):
    seen.clear()
    serve(app, "/sync")
    assert seen == ["7"]


def test_a_task_outside_a_captured_request_is_left_alone(telemetry):
    telemetry.instrument(FastAPI())
    asyncio.run(BackgroundTask(send_mail)())
    assert telemetry.spans == []


def test_the_context_reaches_the_threads_of_an_executor(telemetry):
    app = FastAPI()
    ids = []

    @app.get("/")
    async def start():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            ids.append(await loop.run_in_executor(pool, correlation_id))
            ids.append(pool.submit(correlation_id).result())
        ids.append(await loop.run_in_executor(None, correlation_id))

    telemetry.instrument(app)
    serve(app, "/")
    assert ids == ["abc"] * 3


def spawning(telemetry, function, **options):
    """Spawns work in a request, waits for its end, and returns the tracking ID."""
    app = FastAPI()
    ids = []

    @app.get("/")
    async def start():
        ids.append(background.spawn(function, **options))

    async def run():
        await call(app, http_scope(headers=HEADERS))
        while background.pending():
            await asyncio.sleep(0.005)

    telemetry.instrument(app)
    asyncio.run(run())
    return ids[0]


def test_spawned_work_has_a_tracking_id_and_a_linked_span(telemetry):
    tracking_id = spawning(telemetry, send_mail)
    request, (task,) = spans(telemetry, "/")
    assert task.attributes["sightline.tracking_id"] == tracking_id
    assert task.attributes["sightline.correlation_id"] == "abc"
    assert task.links[0].context.span_id == request.context.span_id


@pytest.mark.parametrize("is_async", [True, False])
def test_a_failed_attempt_is_repeated_and_each_attempt_is_a_span(telemetry, is_async):
    attempts = []

    def flaky():
        attempts.append(correlation_id())
        if len(attempts) < 3:
            raise ConnectionError

    async def flaky_async():
        flaky()

    spawning(telemetry, flaky_async if is_async else flaky, retries=5, delay_seconds=0.001)
    assert attempts == ["abc"] * 3
    _, tasks = spans(telemetry, "/")
    assert [task.attributes["sightline.attempt"] for task in tasks] == [1, 2, 3]
    assert [task.status.status_code for task in tasks] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


def test_work_that_is_given_up_goes_to_the_dead_letter_hook_once(telemetry):
    letters = []
    tracking_id = spawning(telemetry, fail, retries=1, delay_seconds=0.001, on_dead_letter=letters.append)
    (letter,) = letters
    assert (letter.tracking_id, letter.correlation_id, letter.attempts) == (tracking_id, "abc", 2)
    assert letter.function is fail
    assert isinstance(letter.error, ValueError)


def test_work_that_is_given_up_without_a_hook_is_logged(telemetry, caplog):
    tracking_id = spawning(telemetry, fail)
    assert f"given up after 1 attempts (tracking ID {tracking_id})" in caplog.text


def test_a_dead_letter_hook_that_raises_is_reported(telemetry, caplog):
    spawning(telemetry, fail, on_dead_letter=lambda letter: 1 // 0)
    assert "a dead-letter hook raised" in caplog.text


def test_work_that_a_shutdown_cuts_off_goes_to_the_dead_letter_hook(telemetry):
    letters = []

    async def run():
        background.spawn(asyncio.sleep, 60, on_dead_letter=letters.append)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert [type(letter.error) for letter in letters] == [asyncio.CancelledError]


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"delay_seconds": 0}, {"delay_seconds": float("nan")}])
def test_wrong_options_are_refused_at_once(wrong):
    with pytest.raises(SettingsError):
        background.spawn(fail, **wrong)


def test_work_spawned_by_a_sync_handler_runs_on_the_event_loop(telemetry):
    app = FastAPI()
    done = []

    @app.get("/")
    def start():
        background.spawn(lambda: done.append(correlation_id()))

    async def run():
        answer = await call(app, http_scope(headers=HEADERS))
        while background.pending():
            await asyncio.sleep(0.005)
        return answer.status

    telemetry.instrument(app)
    assert asyncio.run(run()) == 200
    assert done == ["abc"]


def test_pending_work_goes_to_its_hook_when_the_application_shuts_down(telemetry):
    letters = []

    async def run():
        background.spawn(asyncio.sleep, 60, on_dead_letter=letters.append)
        await asyncio.sleep(0.01)
        await background.give_up_pending(1.0)
        return background.pending()

    assert asyncio.run(run()) == 0
    assert len(letters) == 1
