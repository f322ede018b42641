"""
Both services in a real Kubernetes, as deploy/kubernetes describes them.

The tests speak to `kubectl` alone: to the cluster of the variable KUBECONFIG, whose nodes have been given the services'
images, or to one of their own, which takes root and what tools/install.py builds. They run when they are asked for by
their path, as `make kubernetes-test` does, and are left out otherwise.
"""
