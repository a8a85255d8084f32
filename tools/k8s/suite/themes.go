//go:build linux

package suite

// themes are all of them, in the order in which they run: themes of the same need follow each other.
func themes() []theme {
	return []theme{
		examples(), placement(), claims(), rollout(), replicas(),
		first(), roll(), kill(), scaling(), standby(), colocated(), mutual(), trouble(), hpa(), keda(),
	}
}
