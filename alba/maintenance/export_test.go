package maintenance

import "context"

// RebalanceWhile is Rebalance that ends early once goOn no longer holds.
func (a *Agent) RebalanceWhile(ctx context.Context, goOn func() bool) error {
	return a.rebalanceWhile(ctx, goOn)
}

// SurveyAndRebalance is a round of the agent.
func (a *Agent) SurveyAndRebalance(ctx context.Context) error { return a.surveyAndRebalance(ctx) }
