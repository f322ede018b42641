"""The echo.v1 API: `echo.proto` and the stubs that `make protos` writes from it."""
