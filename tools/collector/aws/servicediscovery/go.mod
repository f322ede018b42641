module github.com/aws/aws-sdk-go-v2/service/servicediscovery

go 1.25.0

require github.com/aws/aws-sdk-go-v2/config v1.33.3
