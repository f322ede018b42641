// Package servicediscovery stands for AWS's of this name, by which the load_balancing exporter finds Collectors in
// AWS Cloud Map. Here that way always fails: it is not used, and AWS's own is most of what would be to build.
package servicediscovery

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// Client finds nothing.
type Client struct{}

// Options holds nothing.
type Options struct{}

// DiscoverInstancesInput is a question.
type DiscoverInstancesInput struct {
	NamespaceName, ServiceName, OwnerAccount *string
	HealthStatus                             types.HealthStatusFilter
	MaxResults                               *int32
	OptionalParameters, QueryParameters      map[string]string
}

// DiscoverInstancesOutput would be its answer.
type DiscoverInstancesOutput struct {
	Instances []types.HttpInstanceSummary
}

// NewFromConfig returns a client.
func NewFromConfig(config.Config, ...func(*Options)) *Client {
	return &Client{}
}

// DiscoverInstances fails.
func (*Client) DiscoverInstances(
	context.Context, *DiscoverInstancesInput, ...func(*Options),
) (*DiscoverInstancesOutput, error) {
	return nil, errors.New("this Collector is built without AWS Cloud Map")
}
