"""A JSON schema of the part of KubeRay's RayJob (ray.io/v1, KubeRay 1.5.1 to 1.6) that the example uses: names, types, required keys.

Every object is closed, so a misspelt key is found. The pod part has the types of Kubernetes' core/v1.
"""

from typing import Any

TEXT, WHOLE, YES = {"type": "string"}, {"type": "integer", "format": "int32"}, {"type": "boolean"}
#: 1, "500m", "16Gi"
QUANTITY = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$"}]}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


SECRET_KEY = closed(("key",), name=TEXT, key=TEXT, optional=YES)
CONTAINER = closed(
    ("name",),
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
    image=TEXT, imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}, command=many(TEXT), args=many(TEXT),
    env=many(closed(("name",), name=TEXT, value=TEXT, valueFrom=closed(secretKeyRef=SECRET_KEY))),
    envFrom=many(closed(secretRef=closed(name=TEXT, optional=YES), prefix=TEXT)),
    ports=many(closed(("containerPort",), containerPort=WHOLE, name={"type": "string", "maxLength": 15}, protocol=TEXT)),
    resources=closed(requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=many(closed(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly=YES, subPath=TEXT)),
)  # fmt: skip
POD = closed(
    ("containers",),
    containers=many(CONTAINER), terminationGracePeriodSeconds={"type": "integer"}, serviceAccountName=TEXT, nodeSelector=TEXTS,
    volumes=many(closed(("name",), name=TEXT, emptyDir=closed(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY))),
)  # fmt: skip
TEMPLATE = closed(metadata=closed(labels=TEXTS, annotations=TEXTS), spec=POD)
HEAD = closed(("template",), serviceType=TEXT, rayStartParams=TEXTS, template=TEMPLATE)
WORKERS = closed(
    ("groupName", "template"),
    groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, numOfHosts=WHOLE, idleTimeoutSeconds=WHOLE, rayStartParams=TEXTS,
    template=TEMPLATE,
)  # fmt: skip
CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=TEXT, enableInTreeAutoscaling=YES, headGroupSpec=HEAD, workerGroupSpecs=many(WORKERS),
    authOptions=closed(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    autoscalerOptions=closed(
        idleTimeoutSeconds=WHOLE, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, version={"enum": ["v1", "v2"]}
    ),
)  # fmt: skip
SPEC = closed(
    entrypoint=TEXT, entrypointNumCpus={"type": "number"}, entrypointResources=TEXT, runtimeEnvYAML=TEXT, metadata=TEXTS, jobId=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]}, backoffLimit=WHOLE, suspend=YES,
    activeDeadlineSeconds=WHOLE, shutdownAfterJobFinishes=YES, ttlSecondsAfterFinished=WHOLE, rayClusterSpec=CLUSTER,
    submitterConfig=closed(backoffLimit=WHOLE),
)  # fmt: skip
RAYJOB = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"},
    metadata=closed(("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}, labels=TEXTS,
                    namespace=TEXT),
    spec=SPEC,
)  # fmt: skip
