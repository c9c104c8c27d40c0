"""What S3 refuses, in one sentence each with the way out; and what is worth another try."""

from __future__ import annotations

from typing import Any

from orchestrator.store.backend import NotWritable, StoreError
from orchestrator.store.s3_place import S3Place

MISSING = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchUpload"})
LOST_RACE = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
"""Somebody else's conditional write of the same key is under way: AWS asks to try again."""
PAST_THE_END = frozenset({"InvalidRange", "416"})

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
TRANSIENT_CODES = frozenset({"SlowDown", "InternalError", "InternalFailure", "ServiceUnavailable",
    "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException",
    "RequestLimitExceeded", "TooManyRequests", "BadDigest", "IncompleteBody", "InvalidDigest",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "NoSuchUpload", "InvalidPart",
    "BandwidthLimitExceeded", *CONFLICT})  # fmt: skip
"""NoSuchUpload and InvalidPart: the answer that a multipart upload was completed got lost."""

NO_BUCKET = frozenset({"NoSuchBucket"})
WRONG_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure",
                        "InvalidClientTokenId", "UnrecognizedClientException"})  # fmt: skip
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
)
DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "403", "AccountProblem"})
FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507",
                  "ServiceQuotaExceeded", "InsufficientCapacity"})  # fmt: skip
ELSEWHERE = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed",
                       "IllegalLocationConstraintException"})  # fmt: skip
NO_CONDITIONS = frozenset({"NotImplemented", "501"})


def code_of(error: BaseException) -> str:
    """The error code of a botocore ClientError; empty for other errors."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _status(error: BaseException) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well be answered later."""
    import botocore.exceptions as of_botocore
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, of_botocore.ClientError):
        known = code_of(error) in TRANSIENT_CODES or _status(error) in TRANSIENT_STATUS
        return known and code_of(error) not in FULL
    if isinstance(error, of_botocore.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    network = (
        of_botocore.ConnectionError,
        of_botocore.HTTPClientError,  # reading, or a connection that closed
        of_botocore.IncompleteReadError,
        of_botocore.FlexibleChecksumError,
        of_botocore.MetadataRetrievalError,
        of_botocore.CredentialRetrievalError,
        ResponseParserError,  # half an answer
        HTTPError,  # cut in the body of a refusal, which botocore reads outside its own try
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, network)


def never_answered(error: BaseException) -> bool:
    """Whether nothing listens there, or no such host is known."""
    from botocore.exceptions import EndpointConnectionError

    return isinstance(error, EndpointConnectionError)


def in_words(error: BaseException) -> str:
    """One line about an error."""
    code, status = (
        code_of(error),
        _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode"),
    )
    if code:
        message = str(_response(error).get("Error", {}).get("Message", "")).rstrip(".")
        return f"{code} ({message or f'status {status}'})"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def refusal(error: BaseException, place: S3Place, key: str) -> StoreError:
    """The store's answer to an error that trying again does not mend."""
    said = _credentials_sentence(error) or _sentence(code_of(error), place)
    if said:
        return NotWritable(f"the store {place.root} {said}")
    if isinstance(error, OSError):
        return NotWritable(
            f"{key} cannot be kept in a file here: {error.strerror or error}; free space in the "
            "temporary folder, then run again"
        )
    return StoreError(f"the store {place.root} refused {key}: {in_words(error)}")


def _credentials_sentence(error: BaseException) -> str:
    import botocore.exceptions as of_botocore

    missing = (of_botocore.NoCredentialsError, of_botocore.PartialCredentialsError)
    if isinstance(error, missing):
        return (
            "needs credentials and none are found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the node a role"
        )
    if isinstance(error, of_botocore.ProfileNotFound):
        return f"cannot be opened: {error}; correct AWS_PROFILE"
    if isinstance(error, of_botocore.SSLError):
        return f"has a certificate nobody vouches for ({error}); set AWS_CA_BUNDLE to its issuer"
    if isinstance(error, of_botocore.ParamValidationError | of_botocore.InvalidRegionError):
        return (
            f"has a name that S3 does not allow ({' '.join(str(error).split())}); correct --store"
        )
    return ""


def _sentence(code: str, place: S3Place) -> str:
    at = place.endpoint_url or "AWS"
    if code in NO_BUCKET:
        return (
            f"has no bucket: {place.bucket!r} does not exist at {at}; create it "
            f"(aws s3 mb s3://{place.bucket}), or name another --store"
        )
    if code in WRONG_KEYS:
        return (
            f"does not take these credentials ({code} from {at}); correct AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if code in EXPIRED:
        return f"does not take these credentials any more ({code}); renew them, then run again"
    if code in DENIED:
        return (
            f"does not let these credentials in ({code} from {at}); allow them s3:GetObject, "
            f"s3:PutObject, s3:DeleteObject and s3:ListBucket on {place.bucket!r}"
        )
    if code in FULL:
        return f"is full ({code}); free space or raise its quota, then run again"
    if code in ELSEWHERE:
        return "is in another region; add ?region=REGION to --store, or set AWS_REGION"
    if code in NO_CONDITIONS:
        return (
            f"cannot write on condition ({code} from {at}: If-None-Match, If-Match), by which "
            "saeq decides who works on what; use a server that can, or a folder"
        )
    if code == "RequestTimeTooSkewed":
        return "finds this machine's clock wrong by more than 15 min; set it, then run again"
    return ""
