// Package types has what the load_balancing exporter takes from AWS's package of this name.
package types

// HealthStatusFilter says which instances are asked for.
type HealthStatusFilter string

// HealthStatusFilterHealthy asks for those that are healthy.
const HealthStatusFilterHealthy HealthStatusFilter = "HEALTHY"

// HttpInstanceSummary is one instance.
type HttpInstanceSummary struct {
	Attributes map[string]string
}
