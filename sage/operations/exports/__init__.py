"""A topology in the words of other tools: AsyncAPI, Docker Compose, Kubernetes, KEDA. Each module has one of them."""

from sage.operations.exports.asyncapi import asyncapi
from sage.operations.exports.compose import compose
from sage.operations.exports.keda import scaled_object
from sage.operations.exports.kubernetes import kubernetes, kubernetes_list

__all__ = ["asyncapi", "compose", "kubernetes", "kubernetes_list", "scaled_object"]
