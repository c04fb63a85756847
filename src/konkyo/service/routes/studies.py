"""Human ranking studies, as their subjects take part in them: by the token of a link, without an API key.

Answers name no model, no method and no digest: what was compared stays in the database.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from konkyo.errors import InvalidRequest, Unauthorized
from konkyo.service.access import REFUSALS, SUBJECT, given_key
from konkyo.service.body import read_body, read_json
from konkyo.service.browsers import refuse_cross_origin
from konkyo.service.http import validate
from konkyo.service.schemas import ErrorBody
from konkyo.service.state import state_of
from konkyo.study.views import Finished, ItemView, Overview, Ranking, RankingRequest, Subject

router = APIRouter(prefix="/v1/studies/{study}", tags=["studies"])

MAX_RANKING_BYTES = 64 * 1024
"""Of the body that a ranking is saved by."""

PICTURE_SECONDS = 24 * 3600
"""How long a browser may keep a picture; they never change."""

StudyId = Annotated[str, Path(description="id of the study, as in the link")]
ItemId = Annotated[str, Path(description="id of an image, as in the overview")]
PictureId = Annotated[str, Path(description="id of a picture, as in the image's answer")]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {**REFUSALS, **{status: {"model": ErrorBody} for status in statuses}}


_READ_ERRORS = _errors(404, 503)
_SAVE_ERRORS = _errors(400, 404, 408, 409, 413, 415, 422, 429, 503)
_SECURITY: dict[str, Any] = {"security": [{SUBJECT: []}]}


async def _subject(request: Request, study: StudyId) -> Subject:
    """Who asks; a token that is of no subject and a study that is not there are told alike.

    Raises:
        Unauthorized, CrossOrigin, StudiesDisabled, StudyStoreFailed
    """
    from konkyo.study.answering import find_subject

    state = state_of(request)
    state.studies.refuse_unless_served()
    refuse_cross_origin(request, state.settings.cors_origins)
    token = given_key(request)
    if not token:
        state.metrics.unauthorized.labels(reason="missing").inc()
        raise Unauthorized("open the study by the link you were given")
    subject = await state.studies.ask(partial(find_subject, study=study, token=token))
    if subject is None:
        state.metrics.unauthorized.labels(reason="unknown").inc()
        raise Unauthorized("this link is not, or no more, one into a study", wrong=True)
    return subject


Asking = Annotated[Subject, Depends(_subject)]


@router.get("", response_model=Overview, responses=_READ_ERRORS, openapi_extra=_SECURITY)
async def get_study(request: Request, response: Response, subject: Asking) -> Overview:
    """What the study is about, its images in the order of who asks, and which of them are done."""
    from konkyo.study.answering import read_overview

    response.headers["cache-control"] = "no-store"
    return await state_of(request).studies.ask(partial(read_overview, subject=subject))


@router.get("/items/{item}", response_model=ItemView, responses=_READ_ERRORS, openapi_extra=_SECURITY)
async def get_item(request: Request, response: Response, item: ItemId, subject: Asking) -> ItemView:
    """An image: its maps in the order of who asks, and how they are ranked so far."""
    from konkyo.study.answering import read_item

    response.headers["cache-control"] = "no-store"
    return await state_of(request).studies.ask(partial(read_item, subject=subject, item=item))


@router.put(
    "/items/{item}/ranking",
    response_model=Ranking,
    responses=_SAVE_ERRORS,
    openapi_extra={
        **_SECURITY,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RankingRequest.model_json_schema()}},
        },
    },
)
async def put_ranking(request: Request, item: ItemId, subject: Asking) -> Ranking:
    """Save how the maps of an image are ranked, the best first: as a draft, or as done.

    Saved over a revision that is not the last, it is refused with what was saved since; what is saved
    already may be saved again.
    """
    from konkyo.study.answering import save_ranking

    state = state_of(request)
    async with read_body(request, state.settings, state.budget, limit=MAX_RANKING_BYTES) as body:
        document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidRequest('expected {"ranking": [...], "done": ..., "revision": ...}')
    ranking = validate(RankingRequest, document)
    return await state.studies.ask(partial(save_ranking, subject=subject, item=item, request=ranking))


@router.post("/finish", response_model=Finished, responses=_errors(404, 409, 503), openapi_extra=_SECURITY)
async def post_finish(request: Request, subject: Asking) -> Finished:
    """Say that every image is done; nothing can be changed after it."""
    from konkyo.study.answering import finish

    await state_of(request).studies.ask(partial(finish, subject=subject))
    return Finished()


@router.get(
    "/pictures/{picture}",
    response_class=Response,
    responses={
        **_READ_ERRORS,
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The browser has it."},
    },
    openapi_extra=_SECURITY,
)
async def get_picture(request: Request, picture: PictureId, subject: Asking) -> Response:
    """A picture: an image, or a map over it."""
    from konkyo.study.answering import read_picture

    tag = f'"{picture}"'
    headers = {
        "etag": tag,
        "cache-control": f"private, max-age={PICTURE_SECONDS}, immutable",
        "vary": "authorization",
    }
    png = await state_of(request).studies.ask(partial(read_picture, subject=subject, picture=picture))
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(png, headers=headers, media_type="image/png")
