"""What the programs of this project share: their command lines, and what makes a good gRPC server."""
