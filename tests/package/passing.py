"""Interceptors of grpc-interceptor's that read a handler and call it, and change nothing."""

from typing import Any

import grpc_interceptor


class Passing(grpc_interceptor.ServerInterceptor):
    """grpc-interceptor's way to change nothing."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler."""
        del method_name
        return method(request_or_iterator, context)


class AioPassing(grpc_interceptor.AsyncServerInterceptor):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler."""
        del method_name
        response = method(request_or_iterator, context)
        return response if hasattr(response, "__aiter__") else await response
